"""A judge's words: accepted only where they say so, and with reasons that can be passed on."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch_assets.domain.verdict import feedback, read_verdict


@pytest.mark.parametrize(
    ("answer", "min_score", "accepted"),
    [
        # The word decides.
        ({"verdict": "PASS"}, 0, True),
        ({"verdict": "pass"}, 0, True),
        ({"verdict": "FAIL"}, 0, False),
        ({"verdict": "PASSABLE"}, 0, False),
        ({"verdict": ""}, 0, False),
        ({"verdict": "FAIL", "passed": True}, 0, False),
        # Without it, a true flag does, and only a true one.
        *(({name: True}, 0, True) for name in ("pass", "passed", "is_pass", "ok", "success")),
        ({"pass": False}, 0, False),
        ({"ok": "yes"}, 0, False),
        ({"ok": 1}, 0, False),
        ({"verdict": None, "ok": True}, 0, True),
        # Silence is no consent.
        ({}, 0, False),
        ({"score": 100}, 0, False),
        # The score is a second hurdle where one is set.
        ({"verdict": "PASS", "score": 70}, 70, True),
        ({"verdict": "PASS", "score": 69}, 70, False),
        ({"verdict": "PASS", "score": 0}, 0, True),
        ({"verdict": "PASS"}, 1, False),
        ({"verdict": "FAIL", "score": 100}, 1, False),
        # A judge's model of the user's own may give a fraction.
        ({"verdict": "PASS", "score": 92.5}, 70, True),
        ({"verdict": "PASS", "score": 69.5}, 70, False),
    ],
)
def test_accepted_is_what_the_judge_passes_with_score_enough(
    answer: dict[str, Any], min_score: int, accepted: bool
) -> None:
    verdict = read_verdict(answer, min_score)
    assert verdict.accepted is accepted
    assert verdict.answer == answer


def test_a_pass_with_too_low_a_score_says_so_beside_the_judges_reasons() -> None:
    verdict = read_verdict({"verdict": "PASS", "score": 40, "reasons": ["too short"]}, 70)
    assert verdict.score == 40
    assert verdict.reasons == ["too short", "The score 40 is below 70."]


def test_a_rejection_says_no_more_than_the_judge_did() -> None:
    assert read_verdict({"verdict": "FAIL", "score": 40, "reasons": ["wrong"]}, 70).reasons == ["wrong"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"verdict": "FAIL", "reasons": ["a", "b"]}, "A reviewer rejected the answer:\n- a\n- b"),
        ({"verdict": "FAIL", "reasons": []}, "A reviewer rejected the answer:\n- no reason was given"),
        ({"verdict": "FAIL", "reasons": None}, "A reviewer rejected the answer:\n- no reason was given"),
        ({"verdict": "FAIL"}, "A reviewer rejected the answer:\n- no reason was given"),
        # One reason, not one per letter.
        ({"verdict": "FAIL", "reasons": "too short"}, "A reviewer rejected the answer:\n- too short"),
    ],
)
def test_the_feedback_lists_the_reasons(answer: dict[str, Any], expected: str) -> None:
    assert feedback(read_verdict(answer, 0)) == expected
