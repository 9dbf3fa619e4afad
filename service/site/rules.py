"""Which rule takes a series, and why the others do not. Pure: nothing is read, nothing asked.

Reasons hold words of headers (a description): they are for whoever may see the images, on a
terminal or in an answer, never for a log.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import re2

from model.types import Modality

from ..domain import ANONYMOUS, Origin, SubmitOptions
from .config import MATCHING, Orientation, Rule, Site, Then, When

MAX_TEXT = 200
NEAR_COSINE = 0.8
AXES: tuple[Orientation, ...] = ("sagittal", "coronal", "axial")
SEGMENTED: dict[str, Modality] = {"CT": "ct", "MR": "mr"}
Ranking: TypeAlias = tuple[float, ...]


@dataclass(frozen=True)
class SeriesFacts:
    """What rules can ask of a series. ``modality``: as DICOM writes it (``CT``). ``None`` and empty
    texts are unknown. ``ae_title``: of the sender, where one sent."""

    modality: str
    description: str = ""
    body_part: str = ""
    thickness_mm: float | None = None
    images: int = 0
    ae_title: str = ""
    orientation: Orientation | None = None


class Considered(NamedTuple):
    """What one rule says of a series. ``matched``: all its conditions hold, whether or not a rule
    before it decides."""

    rule: str
    matched: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """The first rule that matches, and what every rule says. Without one, ``rule`` and ``then``
    are ``None`` and the series is set aside."""

    rule: str | None
    then: Then | None
    considered: tuple[Considered, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether the series is a candidate for segmentation."""
        return self.then is not None and not self.then.ignore

    @property
    def why(self) -> str:
        """One sentence: the reason of the rule that decides, or that there is none."""
        if not self.considered:
            return "the site has no rules"
        found = next((one for one in self.considered if one.rule == self.rule), None)
        return found.reason if found else "no rule matches"


@dataclass(frozen=True)
class Candidate:
    """A series of a study. ``key`` tells it from the others. ``rank``: greater is better
    (``service.dicom.ranking``); ``None`` where its headers are not at hand. ``problem``: the code
    that says why it cannot be segmented, where that is known."""

    key: str
    facts: SeriesFacts
    rank: Ranking | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Choice:
    """What becomes of a series of a study: ``chosen`` ones are segmented."""

    key: str
    facts: SeriesFacts
    decision: Decision
    chosen: bool
    why: str


def decide(site: Site, facts: SeriesFacts, origin: Origin) -> Decision:
    """Ask every rule, in the order of the file; the first that matches decides."""
    considered: list[Considered] = []
    first: Rule | None = None
    for rule in site.rules:
        refusal = _refusal(rule, facts, origin)
        if refusal is not None:
            considered.append(Considered(rule.name, False, refusal))
        elif first is None:
            first = rule
            considered.append(Considered(rule.name, True, _deed(rule.then)))
        else:
            reason = f"matches as well, but {first.name} comes first"
            considered.append(Considered(rule.name, True, reason))
    if first is None:
        return Decision(None, None, tuple(considered))
    return Decision(first.name, first.then, tuple(considered))


def possible(site: Site, facts: SeriesFacts, origin: Origin) -> bool:
    """Whether some rule may take a series of which not everything is known: what is unknown is
    taken to match, unless to be ignored."""
    for rule in site.rules:
        asked = rule if rule.then.ignore else _of_what_is_known(rule, facts)
        if _refusal(asked, facts, origin) is None:
            return not rule.then.ignore
    return False


def choose(site: Site, candidates: Iterable[Candidate], origin: Origin) -> tuple[Choice, ...]:
    """Decide on all series of one study: of those that a rule with ``series: best`` matches, the
    one with the greatest rank is chosen; without ranks the one with most images, then the thinnest
    slices, then the first."""
    decided = [(one, decide(site, one.facts, origin)) for one in candidates]
    best = {rule: _best(group) for rule, group in _competing(decided).items()}
    return tuple(_choice(one, decision, best) for one, decision in decided)


def contenders(site: Site, candidates: Iterable[Candidate], origin: Origin) -> frozenset[str]:
    """Keys of the series whose ranks ``choose`` will compare: two or more that one rule with
    ``series: best`` takes."""
    decided = [(one, decide(site, one.facts, origin)) for one in candidates]
    groups = _competing(decided).values()
    return frozenset(one.key for group in groups if len(group) > 1 for one in group)


def submit_options(
    decision: Decision, facts: SeriesFacts, origin: Origin, actor: str = ANONYMOUS
) -> SubmitOptions:
    """What ``intake.submit`` is asked for a series that was chosen. Raises ``ValueError`` for a
    decision that takes nothing."""
    if decision.then is None or decision.then.ignore:
        raise ValueError("nothing to submit: no rule takes this series")
    then = decision.then
    return SubmitOptions(
        modality=SEGMENTED[facts.modality.upper()],
        model=then.model,
        profile=then.profile,
        actor=actor,
        priority=then.priority,
        origin=origin,
        destinations=then.destinations,
    )


def orientation_of(cosines: Sequence[float] | None) -> Orientation | None:
    """The plane of an image by its six direction cosines (PS3.3 C.7.6.2.1.1); ``None`` where it
    lies more than 37 degrees from each."""
    values = np.array(cosines or (), np.float64)
    if values.shape != (6,) or not np.isfinite(values).all():
        return None
    normal = np.abs(np.cross(values[:3], values[3:]))
    return AXES[int(normal.argmax())] if normal.max() >= NEAR_COSINE else None


def _deed(then: Then) -> str:
    if then.ignore:
        return "sets it aside"
    what = f"segments {'the best of these series' if then.series == 'best' else 'it'}"
    how = [f"model {then.model}"] if then.model else []
    how += [f"profile {then.profile}"] if then.profile else []
    how += [f"priority {then.priority.value}"]
    how += [f"to {', '.join(then.destinations)}"] if then.destinations else []
    return f"{what} ({'; '.join(how)})"


def _of_what_is_known(rule: Rule, facts: SeriesFacts) -> Rule:
    known = {
        "description": facts.description,
        "body_part": facts.body_part,
        "thickness_mm": facts.thickness_mm,
        "orientation": facts.orientation,
    }
    unknown = {name: None for name, value in known.items() if value in (None, "")}
    return rule.model_copy(update={"when": rule.when.model_copy(update=unknown)})


def _refusal(rule: Rule, facts: SeriesFacts, origin: Origin) -> str | None:
    """The first condition that fails, in words; ``None`` when all hold."""
    if not rule.then.ignore and facts.modality.upper() not in SEGMENTED:
        return f"modality is {facts.modality or 'not known'}, neither CT nor MR"
    for condition in CONDITIONS:
        if (said := condition(rule.when, facts)) is not None:
            return said
    if rule.when.origin and origin not in rule.when.origin:
        return f"came by {origin.value}, not by {_either(rule.when.origin)}"
    return None


def _modality(when: When, facts: SeriesFacts) -> str | None:
    if when.modality is None or facts.modality.lower() == when.modality:
        return None
    return f"modality is {facts.modality or 'not known'}, not {when.modality.upper()}"


def _description(when: When, facts: SeriesFacts) -> str | None:
    return _lacks("description", when.description, facts.description)


def _not_description(when: When, facts: SeriesFacts) -> str | None:
    if when.not_description is None or not _holds(when.not_description, facts.description):
        return None
    return f"description {_quoted(facts.description)} holds {when.not_description!r}"


def _body_part(when: When, facts: SeriesFacts) -> str | None:
    return _lacks("body part", when.body_part, facts.body_part)


def _thickness(when: When, facts: SeriesFacts) -> str | None:
    if when.thickness_mm is None:
        return None
    least, most = when.thickness_mm
    if facts.thickness_mm is None:
        return "slice thickness is not known"
    if least <= facts.thickness_mm <= most:
        return None
    return f"slice thickness is {facts.thickness_mm:g} mm, not {least:g} to {most:g}"


def _orientation(when: When, facts: SeriesFacts) -> str | None:
    if when.orientation is None or when.orientation == facts.orientation:
        return None
    return f"orientation is {facts.orientation or 'not known'}, not {when.orientation}"


def _images(when: When, facts: SeriesFacts) -> str | None:
    if when.min_images is not None and facts.images < when.min_images:
        return f"{facts.images} images, fewer than {when.min_images}"
    if when.max_images is not None and facts.images > when.max_images:
        return f"{facts.images} images, more than {when.max_images}"
    return None


def _ae_title(when: When, facts: SeriesFacts) -> str | None:
    if not when.ae_title or facts.ae_title.strip() in when.ae_title:
        return None
    return f"AE title is {facts.ae_title.strip() or 'not known'}, not {_either(when.ae_title)}"


CONDITIONS: tuple[Callable[[When, SeriesFacts], str | None], ...] = (
    _modality,
    _ae_title,
    _description,
    _not_description,
    _body_part,
    _thickness,
    _orientation,
    _images,
)


def _lacks(name: str, pattern: str | None, text: str) -> str | None:
    if pattern is None or _holds(pattern, text):
        return None
    return f"{name} {_quoted(text)} does not hold {pattern!r}" if text else f"{name} is not known"


def _holds(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text[:MAX_TEXT]) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> "re2._Regexp":
    """RE2 takes time linear in the text, whatever the pattern."""
    return re2.compile(pattern, MATCHING)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…")


def _either(values: Sequence[str]) -> str:
    return " or ".join(str(value) for value in values)


def _competing(decided: Sequence[tuple[Candidate, Decision]]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for one, decision in decided:
        then = decision.then
        if decision.rule and then and decision.taken and then.series == "best" and not one.problem:
            groups.setdefault(decision.rule, []).append(one)
    return groups


def _best(group: Sequence[Candidate]) -> Candidate:
    if all(one.rank is not None for one in group):
        return max(group, key=lambda one: one.rank or ())
    return max(group, key=lambda one: (one.facts.images, -(one.facts.thickness_mm or 1e9)))


def _choice(one: Candidate, decision: Decision, best: dict[str, Candidate]) -> Choice:
    if not decision.taken:
        return Choice(one.key, one.facts, decision, False, decision.why)
    if one.problem:
        return Choice(one.key, one.facts, decision, False, f"cannot be used ({one.problem})")
    taken = best.get(decision.rule or "", one)
    if taken is not one:
        why = f"{decision.rule} takes the best series of a study, and another is better"
        return Choice(one.key, one.facts, decision, False, why)
    return Choice(one.key, one.facts, decision, True, decision.why)
