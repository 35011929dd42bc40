"""The ledger: it never lets the budget be exceeded, whatever is asked, torn, killed or run beside it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.federation.privacy.accountant import Spend, compose, epsilon
from infra.federation.privacy.ledger import Budget, PrivacyLedger, table
from models.errors import ConfigError, FederationError, OutputError

BUDGET = Budget(epsilon=4.0, delta=1e-4)
ROUND = Spend(steps=25, sampling_rate=16 / 300, noise_multiplier=1.0)
ALONE = epsilon(25, 16 / 300, 1.0, 1e-4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "privacy.jsonl"


def fill(ledger: PrivacyLedger, spend: Spend = ROUND) -> int:
    """Rounds until it refuses."""
    for n in range(1000):
        try:
            ledger.charge("run", n, spend)
        except FederationError:
            return n
    raise AssertionError("it never refuses")


def test_charges_compose_and_survive_a_restart(path: Path) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    assert ledger.spent() == 0.0
    assert ledger.charge("run", 1, ROUND) == 1
    assert ledger.charge("run", 2, ROUND) == 1
    again = PrivacyLedger(path, BUDGET)
    assert again.spent() == ledger.spent() == pytest.approx(epsilon(50, 16 / 300, 1.0, 1e-4))
    assert again.spent(ROUND) == pytest.approx(epsilon(75, 16 / 300, 1.0, 1e-4))


def test_a_line_says_what_was_paid_for(path: Path) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    ledger.charge("run", 3, ROUND)
    ledger.record_update("run", 3, 1, "ab" * 32)
    charge, update = (json.loads(line) for line in path.read_text().splitlines())
    assert charge == {
        "entry": "charge", "run": "run", "round": 3, "attempt": 1, "steps": 25, "sampling_rate": 16 / 300,
        "noise_multiplier": 1.0, "delta": 1e-4,
    }  # fmt: skip
    assert update == {"entry": "update", "run": "run", "round": 3, "attempt": 1, "digest": "ab" * 32}
    assert path.stat().st_mode & 0o077 == 0


def test_the_budget_holds_over_runs_and_a_refusal_writes_nothing(path: Path) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    rounds = fill(ledger)
    assert rounds > 2
    before = path.read_bytes()
    with pytest.raises(FederationError, match="Raise noise_multiplier") as refused:
        PrivacyLedger(path, BUDGET).charge("another", 1, ROUND)
    spent = ledger.spent()
    assert spent <= BUDGET.epsilon < ledger.spent(ROUND)
    assert f"{spent:.2f} are spent, {BUDGET.epsilon - spent:.2f} are left" in str(refused.value)
    assert path.read_bytes() == before


def test_without_noise_nothing_is_affordable(path: Path) -> None:
    with pytest.raises(FederationError, match="inf"):
        PrivacyLedger(path, BUDGET).charge("run", 1, Spend(1, 0.01, 0.0))
    assert not path.exists()


def test_sending_again_is_free_and_training_again_is_not(path: Path) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    assert ledger.paid_update("run", 1) is None
    ledger.charge("run", 1, ROUND)
    assert ledger.paid_update("run", 1) is None  # charged, but killed before the update was stored
    ledger.record_update("run", 1, 1, "first")
    spent = ledger.spent()
    for _ in range(3):
        assert PrivacyLedger(path, BUDGET).paid_update("run", 1) == "first"
    assert ledger.spent() == spent
    assert ledger.paid_update("run", 2) is None
    assert ledger.paid_update("other", 1) is None
    assert ledger.charge("run", 1, ROUND) == 2
    assert ledger.spent() == pytest.approx(epsilon(50, 16 / 300, 1.0, 1e-4))
    ledger.record_update("run", 1, 2, "second")
    assert ledger.paid_update("run", 1) == "second"


def test_an_update_that_was_not_paid_for_may_not_leave(path: Path) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    ledger.charge("run", 1, ROUND)
    for run, number, attempt in (("run", 1, 2), ("run", 2, 1), ("other", 1, 1)):
        with pytest.raises(FederationError, match="must not leave"):
            ledger.record_update(run, number, attempt, "x")


@pytest.mark.parametrize("cut", [1, 20, -2, -1])
def test_a_torn_last_line_counts(path: Path, cut: int) -> None:
    """Cut anywhere, the charge that was being written counts as one; without its newline alone it is still whole."""
    ledger = PrivacyLedger(path, BUDGET)
    ledger.charge("run", 1, ROUND)
    whole = path.read_bytes()
    ledger.charge("run", 2, ROUND)
    second = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + second[:cut])
    two, three = (epsilon(25 * n, 16 / 300, 1.0, 1e-4) for n in (2, 3))
    assert ledger.spent() == pytest.approx(two)
    ledger.charge("run", 3, ROUND)
    assert ledger.spent() == pytest.approx(three)
    assert ledger.summary()["unreadable_lines"] == (0 if cut == -1 else 1)
    assert len([line for line in path.read_bytes().splitlines() if line]) == 3


def test_a_torn_first_line_counts_as_what_is_asked_next(path: Path) -> None:
    path.write_bytes(b'{"entry": "cha')
    ledger = PrivacyLedger(path, BUDGET)
    assert ledger.spent(ROUND) == pytest.approx(epsilon(50, 16 / 300, 1.0, 1e-4))
    tight = PrivacyLedger(path, Budget((ALONE + ledger.spent(ROUND)) / 2, 1e-4))
    with pytest.raises(FederationError, match="budget"):
        tight.charge("run", 1, ROUND)


@pytest.mark.parametrize(
    "line",
    [b"\x00\xff garbage", b"[]", b"null", b'{"entry": "gift", "run": "r", "round": 1}',
     b'{"entry": "charge", "run": "r", "round": 1, "attempt": 1, "steps": -5, "sampling_rate": 0.1, "noise_multiplier": 1}',
     b'{"entry": "charge", "run": "r", "round": 1, "attempt": 1, "steps": true, "sampling_rate": 0.1, "noise_multiplier": 1}',
     b'{"entry": "charge", "run": "r", "round": 1, "attempt": 1, "steps": 1, "sampling_rate": NaN, "noise_multiplier": 1}'],
)  # fmt: skip
def test_a_damaged_line_counts_as_the_costliest_known(path: Path, line: bytes) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    ledger.charge("run", 1, ROUND)
    cheap = Spend(1, 0.01, 5.0)
    ledger.charge("run", 2, cheap)
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert ledger.spent() == pytest.approx(compose([ROUND, cheap, ROUND], 1e-4))


@settings(max_examples=12, deadline=None)
@given(
    asked=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from([1, 25, 200]),
            st.sampled_from([0.05, 1.0]),
            st.sampled_from([0.8, 2.0, 8.0]),
            st.sampled_from(["store", "tear", "nothing"]),
        ),
        max_size=8,
    )
)
def test_no_sequence_of_charges_exceeds_the_budget(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, int, float, float, str]]
) -> None:
    """What was let through, composed independently of the ledger, stays within the budget; tearing lines never frees any."""
    path = tmp_path_factory.mktemp("ledger") / "privacy.jsonl"
    granted: list[Spend] = []
    for number, steps, rate, sigma, then in asked:
        ledger, spend = PrivacyLedger(path, BUDGET), Spend(steps, rate, sigma)
        try:
            attempt = ledger.charge("run", number, spend)
        except FederationError:
            assert compose([*granted, spend], 1e-4) > BUDGET.epsilon or b"{torn" in path.read_bytes()
            continue
        granted.append(spend)
        if then == "store":
            ledger.record_update("run", number, attempt, "x")
        elif then == "tear":
            with path.open("ab") as file:
                file.write(b"{torn")
        assert compose(granted, 1e-4) <= BUDGET.epsilon
        assert ledger.spent() >= compose(granted, 1e-4) - 1e-6


@pytest.mark.slow
def test_a_charge_stands_when_the_process_is_killed_before_it_is_used(path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from infra.federation.privacy.accountant import Spend\n"
        "from infra.federation.privacy.ledger import Budget, PrivacyLedger\n"
        "PrivacyLedger(Path(sys.argv[1]), Budget(4.0, 1e-4)).charge('run', 1, Spend(25, 16 / 300, 1.0))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = PrivacyLedger(path, BUDGET)
    assert ledger.spent() == pytest.approx(ALONE)
    assert ledger.paid_update("run", 1) is None
    assert ledger.charge("run", 1, ROUND) == 2


def _fill_in_a_process(path: str, worker: int) -> int:
    ledger = PrivacyLedger(Path(path), BUDGET)
    granted = 0
    for n in range(6):
        try:
            ledger.charge(f"run{worker}", n, ROUND)
            granted += 1
        except FederationError:
            break
    return granted


@pytest.mark.slow
def test_processes_beside_one_another_share_one_budget(path: Path, tmp_path: Path) -> None:
    alone = fill(PrivacyLedger(tmp_path / "other.jsonl", BUDGET))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        granted = pool.starmap(_fill_in_a_process, [(str(path), k) for k in range(3)])
    assert sum(granted) == min(alone, 18)
    ledger = PrivacyLedger(path, BUDGET)
    assert ledger.summary()["unreadable_lines"] == 0
    assert ledger.spent() <= BUDGET.epsilon


def test_a_held_ledger_is_a_typed_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr("infra.federation.privacy.ledger._LOCK_WAIT_S", 0.05)
    with FileLock(str(path) + ".lock"), pytest.raises(FederationError, match="another process"):
        PrivacyLedger(path, BUDGET).charge("run", 1, ROUND)


def test_a_ledger_that_cannot_be_written_stops_the_training(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path.parent / "file").write_text("")
    with pytest.raises(OutputError, match="nothing may be trained"):
        PrivacyLedger(path.parent / "file" / "privacy.jsonl", BUDGET).charge("run", 1, ROUND)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        PrivacyLedger(path, BUDGET).charge("run", 1, ROUND)


def test_what_a_site_prints(path: Path) -> None:
    ledger = PrivacyLedger(path, BUDGET)
    ledger.charge("a" * 64, 1, ROUND)
    ledger.charge("a" * 64, 1, ROUND)
    ledger.charge("b" * 64, 1, Spend(10, 0.1, 2.0))
    summary = ledger.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["unit"] == "infant"
    assert summary["epsilon"] + summary["left"] == pytest.approx(summary["budget"])
    first, second = summary["runs"]
    assert (first["rounds"], first["attempts"], first["steps"]) == (1, 2, 50)
    assert first["epsilon"] < summary["epsilon"] < first["epsilon"] + second["epsilon"]
    text = table(summary)
    assert f"ε = {summary['epsilon']:.2f} of 4 spent at δ = 0.0001" in text
    assert "aaaaaaaaaaaa " in text
    assert "unreadable" not in text
    path.write_bytes(path.read_bytes() + b"{torn")
    assert "1 unreadable" in table(ledger.summary())


def test_a_budget_must_be_one() -> None:
    for epsilon_, delta in ((0.0, 1e-4), (float("inf"), 1e-4), (1.0, 0.0), (1.0, 1.0), (float("nan"), 0.1)):
        with pytest.raises(ConfigError, match="budget"):
            Budget(epsilon_, delta)
