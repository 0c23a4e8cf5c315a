import pytest

from pgsonar.config.load import load
from pgsonar.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    """Loads the texts of files in their order."""

    def read_texts(*texts, settings=(), environ=None):
        paths = []
        for number, text in enumerate(texts):
            path = tmp_path / f"{number}.yaml"
            path.write_text(text)
            paths.append(str(path))
        return load(paths, list(settings), environ or {})

    return read_texts


@pytest.fixture
def refused(read):
    """Loads what must be refused; gives message and hint as one text."""

    def read_wrong(*texts, settings=(), environ=None):
        with pytest.raises(ConfigError) as caught:
            read(*texts, settings=settings, environ=environ)
        assert caught.value.exit_code == 2
        return f"{caught.value}\n{caught.value.hint}"

    return read_wrong
