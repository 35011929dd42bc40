"""The loop that the federated run must equal."""

from __future__ import annotations

import numpy as np

from models.adapters import get_vector, set_vector
from models.control_variates import Control, as_sent
from models.local_step import LocalConfig, local_step, normaliser
from models.plain_loop import Algorithm, Round, run_rounds, train_central
from models.predict import frame_scores
from models.quantise import Quantiser, QuantiserConfig
from models.seeds import local_seed, participants, rotation_seed
from models.server_step import RoundSum, ServerConfig, ServerState, server_step
from models.site_update import site_update
from tests.models.helpers import made_up_tokens, tiny_net

LOCAL = LocalConfig(steps=4, batch_size=8, lr=0.05)


def test_one_round_is_the_mean_of_the_local_steps() -> None:
    net, sites = tiny_net(), {"b": made_up_tokens(1), "a": made_up_tokens(2)}
    start = get_vector(net)
    theta = run_rounds(net, sites, rounds=1, local=LOCAL, server=ServerConfig(), seed=7)
    run_rounds(net, sites, rounds=2, local=LOCAL, server=ServerConfig(), seed=7)
    np.testing.assert_array_equal(get_vector(net), start)
    deltas = [local_step(net, sites[n], start, LOCAL, local_seed(7, n, 1)).delta for n in ("a", "b")]
    expected = (start.astype(np.float64) - (deltas[0].astype(np.float64) + deltas[1]) / 2).astype(np.float32)
    np.testing.assert_array_equal(theta, expected)
    np.testing.assert_array_equal(get_vector(net), start)


def test_codec_and_variates_and_participation_by_hand() -> None:
    """Two rounds of two of three sites, unrolled: integers are summed, variates advance only at those who took part."""
    cfg, size = QuantiserConfig(clip=0.05), get_vector(tiny_net()).size
    net, sites = tiny_net(), {n: made_up_tokens(k) for k, n in enumerate("abc")}
    how = Algorithm(control_variates=True, codec=cfg, participation=0.67, steps={"b": 2})
    theta = run_rounds(net, sites, rounds=2, local=LOCAL, server=ServerConfig(), algorithm=how, seed=7)
    state = ServerState.initial(get_vector(net), 0.05)
    own = {n: np.zeros(size) for n in sites}
    for number in (1, 2):
        q = Quantiser(size, cfg, rotation_seed(7, number))
        levels, names = np.zeros(q.padded, np.uint32), participants(tuple("abc"), 2, 7, number)
        for n in names:
            control = Control(as_sent(state.control), own[n])
            sent = site_update(net, sites[n], state.theta, LOCAL, local_seed(7, n, number), control=control,
                               quantiser=q, steps=2 if n == "b" else 0)  # fmt: skip
            assert sent.levels is not None
            assert sent.variate is not None
            levels, own[n] = levels + sent.levels, sent.variate
        reference = normaliser(LOCAL.steps, LOCAL.lr, LOCAL.momentum)
        total = RoundSum(q.decode_sum(levels, 2), 2)
        state = server_step(state, total, ServerConfig(), registered=3, reference=reference)
    assert theta.tobytes() == state.theta.tobytes()
    np.testing.assert_allclose(state.control, np.mean(list(own.values()), axis=0), atol=1e-12)


def test_adaptive_clipping_follows_the_sites() -> None:
    """All updates far above C = 0.001 and a quantile of one half: C grows by e^(0.2 · 0.5) a round."""
    cfg = QuantiserConfig(clip=1e-3, adaptive_quantile=0.5)
    moved = []
    for codec in (cfg, QuantiserConfig(clip=1e-3)):
        seen: list[Round] = []
        run_rounds(tiny_net(), {"a": made_up_tokens(1)}, rounds=3, local=LOCAL, server=ServerConfig(),
                   algorithm=Algorithm(codec=codec), on_round=seen.append)  # fmt: skip
        moved.append([float(np.linalg.norm(r.mean_update)) for r in seen])
    np.testing.assert_allclose(np.divide(*moved), np.exp(0.1 * np.arange(3)), rtol=0.02)


def test_order_of_the_mapping_does_not_matter() -> None:
    a, b = made_up_tokens(1), made_up_tokens(2)
    one = run_rounds(tiny_net(), {"a": a, "b": b}, rounds=2, local=LOCAL, server=ServerConfig())
    two = run_rounds(tiny_net(), {"b": b, "a": a}, rounds=2, local=LOCAL, server=ServerConfig())
    assert one.tobytes() == two.tobytes()


def test_federation_learns_what_no_site_saw_alone() -> None:
    """Each of three sites lacks one reason; together they tell all three apart on new data."""
    sites = {}
    for k in range(3):
        data = made_up_tokens(k, 200)
        keep = data.reason != k
        sites[f"s{k}"] = type(data)(data.tokens[keep], data.gate[keep], data.reason[keep], data.weight[keep])
    net, seen = tiny_net(), list[Round]()
    local = LocalConfig(steps=15, batch_size=16, lr=0.1)
    theta = run_rounds(net, sites, rounds=12, local=local, server=ServerConfig(), on_round=seen.append)
    assert [r.number for r in seen] == list(range(1, 13))
    assert seen[-1].losses["reason"] < seen[0].losses["reason"]
    set_vector(net, theta)
    test = made_up_tokens(50, 300)
    scores = frame_scores(net, test.tokens)
    cry = test.gate == 1
    assert (scores.reason_logits[cry].argmax(1) == test.reason[cry]).mean() > 0.9
    assert ((scores.gate_logit > 0) == cry).mean() > 0.9


def test_central_twin_trains_on_all() -> None:
    net = tiny_net()
    sites = {"a": made_up_tokens(1, 100), "b": made_up_tokens(2, 100)}
    seen: list[Round] = []
    theta = train_central(net, sites, rounds=3, local=LOCAL, server=ServerConfig(), on_round=seen.append)
    assert theta.shape == get_vector(net).shape
    assert len(seen) == 3
