"""Great Expectations at work: an ephemeral context in memory, one checkpoint over two batches, Data Docs into a folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pandas as pd

from models.errors import GateError
from validation.docs import RuleResult, fresh_folder, localise, write_index
from validation.gx import Checkpoint, RunIdentifier, ValidationDefinition, get_context

_SITE: Final = "gate"


def validate(
    batches: dict[str, tuple[pd.DataFrame, Any]], docs_dir: Path | None = None
) -> tuple[RuleResult, ...]:
    """Run each suite over its table and render Data Docs.

    Args:
        batches: suite name → (table with a `path` column, suite).
        docs_dir: folder for the HTML (`index.html`), replaced as a whole; None renders nothing.

    Raises:
        GateError: a rule could not be evaluated (a fault of the rule or the table, not of the recordings).
        OutputError: the folder cannot be written.
    """
    with _quiet_context() as context:
        results = _run(context, batches)
        if docs_dir is not None:
            with fresh_folder(docs_dir) as folder:
                _render(context, folder)
                localise(folder)
                write_index(folder, results)
    return results


@contextmanager
def _quiet_context() -> Iterator[Any]:
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.ERROR)  # the second sets its own level, INFO, on import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations; ours are raised outside of this block
        context = get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        for name in list(context.variables.data_docs_sites or {}):
            context.delete_data_docs_site(name)
        yield context


def _run(context: Any, batches: dict[str, tuple[pd.DataFrame, Any]]) -> tuple[RuleResult, ...]:
    source = context.data_sources.add_pandas("clips")
    results: list[RuleResult] = []
    for name, (table, suite) in batches.items():
        batch = source.add_dataframe_asset(name=name).add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(
            ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
        )
        checkpoint = context.checkpoints.add(
            Checkpoint(
                name=name,
                validation_definitions=[definition],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["path"]},
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": table}, run_id=RunIdentifier(run_name="gate"))
        (report,) = outcome.run_results.values()
        results += [_result(item) for item in report.results]
    return tuple(results)


def _result(item: Any) -> RuleResult:
    config = item.expectation_config
    rule = config.meta["rule"]
    for raised in _exceptions(item.exception_info):
        raise GateError(
            f"gate rule {rule!r} could not be evaluated: {raised}; this is a fault of the rule or its table"
        )
    rows = item.result.get("unexpected_index_list") or []
    observed = item.result.get("observed_value")
    if item.success:
        found = "as expected"
    else:
        found = (
            observed if isinstance(observed, str) else f"{len(rows)} of {item.result['element_count']} clips"
        )
    return RuleResult(
        rule=rule,
        severity=str(getattr(config.severity, "value", config.severity)),
        success=bool(item.success),
        what=config.description or rule,
        found=found,
        fix=config.meta["fix"],
        paths=tuple(str(row["path"]) for row in rows),
    )


def _exceptions(info: dict[str, Any]) -> list[str]:
    """GX nests what it caught by metric; a result without exceptions has one flat, empty record."""
    records = [info] if "raised_exception" in info else list(info.values())
    return [
        str(r.get("exception_message")) for r in records if isinstance(r, dict) and r.get("raised_exception")
    ]


def _render(context: Any, folder: Path) -> None:
    context.add_data_docs_site(
        site_name=_SITE,
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    context.build_data_docs(site_names=[_SITE])
