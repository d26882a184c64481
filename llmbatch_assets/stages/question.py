"""The question before money is spent that nobody has agreed to."""

from __future__ import annotations

from llmbatch_assets.adapters.providers.prices import cost_function
from llmbatch_assets.domain.cost import shown
from llmbatch_assets.domain.outcome import TokenUsage
from llmbatch_assets.domain.plan.report import PlanReport, shown_cost
from llmbatch_assets.domain.plan.selection import Selection
from llmbatch_assets.domain.text import counted
from llmbatch_assets.stages.plan import plan_of_run
from llmbatch_assets.stages.project import Batch

_A_CALL = TokenUsage(requests=1, input_tokens=1_000, output_tokens=1_000)


def question(batch: Batch, selection: Selection, *, force: bool, plans: bool) -> str | None:
    """What to ask before a run of ``llm_outputs``, None where there is nothing to ask.

    That is where the estimate exceeds ``budget.max_cost_usd``, or a price is not known. ``plans``: the run makes the work
    items anew.
    """
    parameters = batch.parameters
    models = [parameters.llm, *([parameters.judge_llm()] if parameters.prompts.judge.enabled else [])]
    prices = [cost_function(llm, parameters.budget.prices)(_A_CALL) for llm in models]
    unpriced = [llm.model_name for llm, price in zip(models, prices, strict=True) if price is None]
    if not (unpriced or (any(prices) and parameters.budget.max_cost_usd)):
        return None
    if not batch.path(batch.layout.schema_py).is_file():
        # The run has it written first, so how many calls there will be is not known.
        return _without_price(unpriced[0], "an unknown number of calls") if unpriced else None
    report = plan_of_run(batch, selection, force=force, plans=plans)
    return _about(report, unpriced) if report.estimate.calls.high else None


def _about(report: PlanReport, unpriced: list[str]) -> str | None:
    estimate, most = report.estimate, report.spending.max_cost_usd
    if unpriced:
        return _without_price(unpriced[0], f"about {counted(round(estimate.calls.likely), 'call')}")
    if report.spending.verdict not in ("exceeds", "may_exceed"):
        return None
    return (
        f"{counted(estimate.n_items, 'item')} will cost {shown_cost(estimate)}, by estimate, and budget.max_cost_usd is {shown(most)}: "
        "the run stops before it costs more. Begin?"
    )


def _without_price(model: str, calls: str) -> str:
    return f"The price of {model} is not known (tell it in budget.prices), and {calls} will be made. Begin?"
