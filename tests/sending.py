"""An exporter with the encoder that feeds it, for tests that hand batches over."""

from pgsonar import exporters
from pgsonar.exporters.encoding import Encoder
from pgsonar.exporters.forms import form_of


class Sending:
    """What goes in as batches leaves as requests."""

    def __init__(self, component, config, store=None):
        self.exporter = exporters.build(component, exporters.way_of(component, config), store)
        self.stats = self.exporter.stats
        self._encoder = Encoder(form_of(config))

    def export(self, batch):
        for encoded in self._encoder.encode(batch):
            self.exporter.put(encoded)

    def close(self, seconds):
        return self.exporter.close(seconds)


build = Sending
