"""One-upload SCAFFOLD on quadratics, where the optimum is known.

Site i holds f_i(y) = ½ (y − b_i)ᵀ H_i (y − b_i). The optimum of the mean solves Σ H_i (x − b_i) = 0; it is not where FedAvg
ends, since each site walks towards its own b_i with its own curvature. At the optimum x with c_i = ∇f_i(x) and c = mean(c_i) =
0 every corrected gradient ∇f_i(y) + c − c_i vanishes at y = x, and so does the proximal term: no site moves. That is the fixed
point, whatever K_i, the participation or μ. Clipping is inactive near it, and quantisation error shrinks with C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from models.control_variates import Control, as_sent, next_server_variate, next_site_variate
from models.errors import FederationError
from models.local_step import normaliser
from models.quantise import Quantiser, QuantiserConfig
from models.seeds import rotation_seed

N, P = 8, 12
LR, STEPS = 0.05, 8


@dataclass
class Quadratics:
    """N heterogeneous quadratics, conditioned between 0.5 and 2."""

    hessians: np.ndarray
    minima: np.ndarray

    @classmethod
    def make(cls, seed: int = 0) -> Quadratics:
        rng = np.random.default_rng(seed)
        bases = [np.linalg.qr(rng.standard_normal((P, P)))[0] for _ in range(N)]
        hessians = np.array([q @ np.diag(rng.uniform(0.5, 2.0, P)) @ q.T for q in bases])
        return cls(hessians, 2.0 * rng.standard_normal((N, P)))

    @property
    def optimum(self) -> np.ndarray:
        rhs = np.einsum("npq,nq->p", self.hessians, self.minima)
        return np.linalg.solve(self.hessians.sum(0), rhs)


Send = Callable[[int, int, np.ndarray], np.ndarray]  # site, round, u = A_ref d → what the server decodes


@dataclass
class Federation:
    """The algorithm of `models.control_variates`, in float64, with every part of it that can be switched off."""

    problem: Quadratics = field(default_factory=Quadratics.make)
    variates: bool = True
    mu: float = 0.0
    momentum: float = 0.0
    participation: float = 1.0
    steps: Mapping[int, int] = field(default_factory=dict)
    send: Send = lambda _site, _round, u: u
    sent_as: Callable[[np.ndarray], np.ndarray] = lambda c: c
    keep_raw: bool = False  # the mistake: the site's variate from what it meant, not from what it sent
    commit: Callable[[int, int], bool] = lambda _site, _round: (
        True
    )  # whether the server's word reaches the site
    arrives: Callable[[int, int], bool] = lambda _site, _round: True  # whether the site's update is counted

    def run(self, rounds: int, seed: int = 1) -> float:
        """Distance to the optimum after so many rounds; the variates stay for inspection."""
        rng = np.random.default_rng(seed)
        reference = normaliser(STEPS, LR, self.momentum)
        theta, self.c, self.own = np.zeros(P), np.zeros(P), np.zeros((N, P))
        for number in range(rounds):
            asked = rng.permutation(N)[: round(self.participation * N)]
            total, counted = np.zeros(P), 0
            sent_c = self.sent_as(self.c)
            for i in sorted(asked.tolist()):
                k = self.steps.get(i, STEPS)
                y, velocity = theta.copy(), np.zeros(P)
                for _ in range(k):
                    g = self.problem.hessians[i] @ (y - self.problem.minima[i]) + self.mu * (y - theta)
                    if self.variates:
                        g = g + sent_c - self.own[i]
                    velocity = self.momentum * velocity + g
                    y = y - LR * velocity
                meant = reference * (theta - y) / normaliser(k, LR, self.momentum)
                update = self.send(i, number, meant)
                after = next_site_variate(
                    Control(sent_c, self.own[i]), (meant if self.keep_raw else update) / reference
                )
                if self.arrives(i, number):
                    total, counted = total + update, counted + 1
                    if self.commit(i, number):
                        self.own[i] = after
            if counted:
                theta = theta - total / counted
                self.c = next_server_variate(self.c, sent_c, total / reference, counted=counted, registered=N)
        return float(np.linalg.norm(theta - self.problem.optimum))

    @property
    def mismatch(self) -> float:
        """‖c − mean(c_i)‖."""
        return float(np.linalg.norm(self.c - self.own.mean(0)))


UNEQUAL = {i: 2 + 3 * i for i in range(N)}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"mu": 0.5},
        {"mu": 0.5, "participation": 0.5},
        {"mu": 0.5, "participation": 0.5, "steps": UNEQUAL},
        {"momentum": 0.9, "steps": UNEQUAL},
    ],
    ids=["variates", "prox", "half the sites", "unequal steps", "momentum"],
)
def test_it_reaches_the_optimum(how: dict) -> None:
    federation = Federation(**how)
    assert federation.run(1500 if "participation" in how else 400) < 1e-10
    assert federation.mismatch < 1e-12


@pytest.mark.parametrize("how", [{}, {"mu": 0.5}, {"participation": 0.5}, {"steps": UNEQUAL}])
def test_without_variates_it_does_not(how: dict) -> None:
    assert Federation(variates=False, **how).run(1500) > 0.1


def quantised(bits: int = 8, clip: float = 1.0) -> Send:
    def send(site: int, number: int, u: np.ndarray) -> np.ndarray:
        q = Quantiser(P, QuantiserConfig(bits=bits, clip=clip), rotation_seed(0, number))
        clipped, _ = q.clip_norm(u)
        return q.decode(q.encode(clipped, np.random.default_rng([site, number])).levels)

    return send


def clipped_to(norm: float) -> Send:
    return lambda _s, _r, u: u * min(1.0, norm / max(float(np.linalg.norm(u)), norm))


def test_a_variate_of_what_was_sent_survives_clipping() -> None:
    """Clipping at 0.05 acts for many rounds: with d̂ in the variate it is forgotten, with the raw d the optimum moves for good."""
    assert Federation(send=clipped_to(0.05)).run(3000) < 1e-10
    assert Federation(send=clipped_to(0.05), keep_raw=True).run(3000) > 1.0


def test_a_variate_of_what_was_sent_survives_quantisation() -> None:
    """8 bits leave noise of 1.4 % of C a round, and no drift; the raw d loses c = mean(c_i) and drifts."""
    right, wrong = Federation(send=quantised()), Federation(send=quantised(), keep_raw=True)
    assert right.run(150) < 0.1
    assert right.mismatch < 1e-12
    wrong.run(150)
    assert wrong.mismatch > 1e-3


def test_c_sent_in_float32_costs_its_rounding_and_no_drift() -> None:
    short, long = Federation(sent_as=as_sent), Federation(sent_as=as_sent)
    assert short.run(400) < 1e-5
    assert long.run(2000) < 1e-5
    assert long.mismatch < 1e-12


def lost(site: int, number: int) -> bool:
    return np.random.default_rng([site, number, 7]).random() >= 0.3


def test_updates_that_do_not_arrive_cost_nothing_if_the_variate_waits_for_the_word() -> None:
    federation = Federation(arrives=lost)
    assert federation.run(1500) < 1e-10
    assert federation.mismatch < 1e-12


def test_one_lost_variate_moves_the_optimum_for_ever() -> None:
    """c − mean(c_i) is conserved by every later round: hence the epoch that begins all variates anew."""
    federation = Federation(commit=lambda site, number: (site, number) != (2, 0))
    assert federation.run(1500) > 0.1
    assert federation.mismatch > 0.01


def test_counts_are_checked() -> None:
    for counted in (0, N + 1):
        with pytest.raises(FederationError, match="registered"):
            next_server_variate(np.zeros(P), np.zeros(P), np.zeros(P), counted=counted, registered=N)
