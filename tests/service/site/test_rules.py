"""Which rule takes a series, and the reason that each gives."""

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import Origin, Priority
from service.site import (
    Candidate,
    Orientation,
    Rule,
    SeriesFacts,
    Site,
    Then,
    When,
    choose,
    contenders,
    decide,
    submit_options,
)

CT = SeriesFacts(
    modality="CT",
    description="Abdomen portal venous 3.0",
    body_part="ABDOMEN",
    thickness_mm=3.0,
    images=120,
    ae_title="ER_CT",
    orientation="axial",
)


def site(*rules: Rule) -> Site:
    return Site(rules=rules)


def one(**when: object) -> Site:
    return site(Rule(name="only", when=When.model_validate(when)))


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ({}, None),
        ({"modality": "ct"}, None),
        ({"modality": "CT"}, None),
        ({"modality": "mr"}, "modality is CT, not MR"),
        ({"description": "PORTAL|venös"}, None),
        ({"description": "arterial"}, "does not hold 'arterial'"),
        ({"not_description": "scout"}, None),
        ({"not_description": "venous"}, "holds 'venous'"),
        ({"body_part": "abdo|liver"}, None),
        ({"body_part": "^chest$"}, "body part 'ABDOMEN' does not hold"),
        ({"thickness_mm": (1, 3)}, None),
        ({"thickness_mm": (3, 5)}, None),
        ({"thickness_mm": (3.5, 5)}, "slice thickness is 3 mm, not 3.5 to 5"),
        ({"orientation": "axial"}, None),
        ({"orientation": "coronal"}, "orientation is axial, not coronal"),
        ({"min_images": 120, "max_images": 120}, None),
        ({"min_images": 121}, "120 images, fewer than 121"),
        ({"max_images": 119}, "120 images, more than 119"),
        ({"ae_title": ("CT1", "ER_CT")}, None),
        ({"ae_title": ("CT1",)}, "AE title is ER_CT, not CT1"),
        ({"origin": ("dimse", "pull")}, None),
        ({"origin": ("stow",)}, "came by dimse, not by stow"),
    ],
)
def test_conditions(when: dict[str, object], reason: str | None) -> None:
    decision = decide(one(**when), CT, Origin.DIMSE)
    assert decision.taken is (reason is None)
    if reason is not None:
        assert reason in decision.considered[0].reason


@pytest.mark.parametrize(
    "when",
    [
        {"description": "."},
        {"body_part": "."},
        {"thickness_mm": (0, 100)},
        {"orientation": "axial"},
        {"ae_title": ("A",)},
    ],
)
def test_what_is_not_known_matches_no_condition(when: dict[str, object]) -> None:
    decision = decide(one(**when), SeriesFacts("CT"), Origin.PULL)
    assert not decision.taken
    assert "not known" in decision.considered[0].reason
    assert decision.why == "no rule matches"


def test_what_is_neither_ct_nor_mr_can_only_be_ignored() -> None:
    rules = (
        Rule(name="all"),
        Rule(name="reports", when=When(description="dose"), then=Then(ignore=True)),
    )
    decision = decide(site(*rules), SeriesFacts("SR", "Dose report"), Origin.DIMSE)
    assert decision.rule == "reports"
    assert not decision.taken
    assert decision.why == "sets it aside"
    assert decision.considered[0].reason == "modality is SR, neither CT nor MR"


def test_later_rules_say_that_they_would_match_too() -> None:
    decision = decide(site(Rule(name="first"), Rule(name="second")), CT, Origin.DIMSE)
    assert [one.matched for one in decision.considered] == [True, True]
    assert decision.considered[1].reason == "matches as well, but first comes first"


def test_a_site_without_rules_takes_nothing() -> None:
    assert decide(Site(), CT, Origin.DIMSE).why == "the site has no rules"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(.*)*!$", "a*a*a*a*a*a*a*a*b"])
def test_no_pattern_hangs(pattern: str) -> None:
    started = time.monotonic()
    decide(one(description=pattern), SeriesFacts("CT", "a" * 200 + "!x"), Origin.DIMSE)
    assert time.monotonic() - started < 0.5


def test_only_the_first_characters_of_a_text_are_searched() -> None:
    far = SeriesFacts("CT", "x" * 200 + "liver")
    decision = decide(one(description="liver"), far, Origin.DIMSE)
    assert not decision.taken
    assert len(decision.considered[0].reason) < 300


def test_submit_options_are_those_of_the_rule() -> None:
    then = Then(model="m", profile="fast", priority=Priority.URGENT)
    options = submit_options(decide(site(Rule(name="a", then=then)), CT, Origin.PULL), CT,
                             Origin.PULL, "key1")  # fmt: skip
    assert (options.modality, options.model, options.profile) == ("ct", "m", "fast")
    assert (options.priority, options.origin, options.actor) == ("urgent", "pull", "key1")
    with pytest.raises(ValueError, match="nothing to submit"):
        submit_options(decide(Site(), CT, Origin.PULL), CT, Origin.PULL)


def candidate(key: str, **facts: object) -> Candidate:
    rank, problem = facts.pop("rank", None), facts.pop("problem", None)
    made = SeriesFacts(**{"modality": "CT", **facts})  # type: ignore[arg-type]
    return Candidate(key, made, rank, problem)  # type: ignore[arg-type]


def test_best_takes_the_greatest_rank() -> None:
    found = [candidate("a", images=300, rank=(1, 0)), candidate("b", images=10, rank=(1, 5))]
    chosen = choose(one(), found, Origin.DIMSE)
    assert [(choice.key, choice.chosen) for choice in chosen] == [("a", False), ("b", True)]
    assert chosen[0].why == "only takes the best series of a study, and another is better"
    assert contenders(one(), found, Origin.DIMSE) == {"a", "b"}


def test_without_ranks_the_most_images_then_the_thinnest_slices() -> None:
    found = [
        candidate("few", images=40, thickness_mm=1.0),
        candidate("thick", images=80, thickness_mm=5.0),
        candidate("thin", images=80, thickness_mm=2.0),
        candidate("unknown", images=80),
    ]
    assert [c.key for c in choose(one(), found, Origin.PULL) if c.chosen] == ["thin"]


def test_what_cannot_be_used_does_not_compete() -> None:
    found = [candidate("a", rank=(9,), problem="gantry_tilt"), candidate("b", rank=(1,))]
    first, second = choose(one(), found, Origin.DIMSE)
    assert (first.chosen, first.why) == (False, "cannot be used (gantry_tilt)")
    assert second.chosen


def test_every_takes_every_one() -> None:
    every = site(Rule(name="all", then=Then(series="every")))
    found = [candidate("a"), candidate("b")]
    assert all(choice.chosen for choice in choose(every, found, Origin.DIMSE))
    assert not contenders(every, found, Origin.DIMSE)


WORDS = st.sampled_from(["", "Liver", "liver venous", "T1 in phase", "Scout", "Dose ÄÖ", "a" * 250])
PATTERNS = st.none() | st.sampled_from(["liver", "^t1", "(a+)+$", "in.?phase", "ä|venous", r"\bT1"])
ORIENTATIONS = st.none() | st.sampled_from(get_args(Orientation))
AES = st.sampled_from(["", "CT1", "ER_CT"])

facts = st.builds(
    SeriesFacts,
    modality=st.sampled_from(["CT", "MR", "SR", "", "ct"]),
    description=WORDS | st.text(max_size=300),
    body_part=WORDS,
    thickness_mm=st.none() | st.floats(0, 20),
    images=st.integers(0, 2000),
    ae_title=AES,
    orientation=ORIENTATIONS,
)
whens = st.builds(
    When,
    modality=st.none() | st.sampled_from(["ct", "mr"]),
    description=PATTERNS,
    not_description=PATTERNS,
    body_part=PATTERNS,
    thickness_mm=st.none() | st.tuples(st.floats(0, 5), st.floats(5, 20)),
    orientation=ORIENTATIONS,
    min_images=st.none() | st.integers(1, 500),
    max_images=st.none() | st.integers(1, 500),
    ae_title=st.lists(AES.filter(bool), max_size=2).map(tuple),
    origin=st.lists(st.sampled_from(Origin), max_size=2).map(tuple),
)
thens = st.builds(Then, series=st.sampled_from(["best", "every"])) | st.just(Then(ignore=True))
sites = st.lists(st.tuples(whens, thens), max_size=5).map(
    lambda made: Site(
        rules=tuple(Rule(name=f"r{i}", when=when, then=then) for i, (when, then) in enumerate(made))
    )
)
origins = st.sampled_from(Origin)


@given(sites, facts, origins)
def test_the_first_match_wins_and_every_rule_has_a_reason(
    site: Site, facts: SeriesFacts, origin: Origin
) -> None:
    decision = decide(site, facts, origin)
    assert decision == decide(site, facts, origin)
    assert [one.rule for one in decision.considered] == [rule.name for rule in site.rules]
    assert all(one.reason for one in decision.considered)
    matching = [one.rule for one in decision.considered if one.matched]
    assert decision.rule == (matching[0] if matching else None)
    assert decision.taken <= (facts.modality.upper() in ("CT", "MR"))


@given(sites, facts, origins)
def test_a_rule_matches_alone_what_it_matches_among_others(
    site: Site, facts: SeriesFacts, origin: Origin
) -> None:
    together = {one.rule: one.matched for one in decide(site, facts, origin).considered}
    for rule in site.rules:
        alone = decide(Site(rules=(rule,)), facts, origin)
        assert alone.considered[0].matched is together[rule.name]


@given(sites, st.lists(facts, max_size=6), origins)
def test_best_chooses_one_series_of_a_rule_whatever_their_order(
    site: Site, found: list[SeriesFacts], origin: Origin
) -> None:
    candidates = [Candidate(str(n), f, rank=(n % 3, n)) for n, f in enumerate(found)]
    chosen = choose(site, candidates, origin)
    assert [one.key for one in chosen] == [one.key for one in candidates]
    for rule in site.rules:
        of_rule = [one for one in chosen if one.decision.rule == rule.name]
        taken = [one for one in of_rule if one.chosen]
        expected = 0 if rule.then.ignore else len(of_rule)
        assert len(taken) == (min(1, expected) if rule.then.series == "best" else expected)
    backwards = choose(site, candidates[::-1], origin)
    assert {c.key for c in chosen if c.chosen} == {c.key for c in backwards if c.chosen}
    assert all(one.why for one in chosen)
