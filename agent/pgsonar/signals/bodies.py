"""The text of each leak event: the sentence of its kind, and what has become of it.

The rule: an event can be read without its attributes.
"""

from __future__ import annotations

from pgsonar.model import EpisodeEvent
from pgsonar.signals.sentences import SENTENCES, whose
from pgsonar.signals.words import age, count


def body(event: EpisodeEvent) -> str:
    """The sentence for one step of an episode."""
    episode = event.episode
    if event.name == "resolved":
        return _ended(event)
    seconds = (event.moment.at - episode.members[0].onset) / 1e9  # of the oldest that stands, who is named beside it
    sentence = SENTENCES[episode.kind](episode, age(seconds))
    return sentence if event.name == "opened" else f"Still: {sentence}"


def _ended(event: EpisodeEvent) -> str:
    episode = event.episode
    lasted = age(((episode.ended_at or event.moment.at) - episode.onset) / 1e9)
    what = f"{episode.kind} {whose(episode)}on {episode.server.label}"
    if episode.end_reason == "resolved":
        return f"Resolved: {what} ended after {lasted}, at most {count(episode.peak_members, 'member')}."
    if episode.end_reason == "agent_stopped":
        return f"No longer watched: {what} was open for {lasted} when pgsonar stopped."
    return f"Lost from sight: {what} was open for {lasted} when its server was no longer seen."
