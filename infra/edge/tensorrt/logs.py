"""What `trtexec` prints and writes: its version, its refusals, latency, layers.

Formats of TensorRT 8.2 to 11 (source: `samples/common/sampleReporting.cpp` of github.com/NVIDIA/TensorRT). They differ:

- 8.2 prints one percentile and an "End-to-End Host Latency"; from 8.5 on there are several percentiles. So percentiles are taken
  from the single queries of `--exportTimes`, which all versions write; 8.2 lists its warm-up there too, and that is left out.
- The table of `--dumpProfile` has the layer first up to 8.5 and last from 8.6 on, and a median from 8.5 on.

Standard library only, Python 3.6.
"""
# ruff: noqa: UP006, UP035

import json
import math
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from .commands import Version, parse_version
from .errors import BuildFailed

MAX_JSON_BYTES = 64 << 20

_STATUS = re.compile(r"&&&& (RUNNING|PASSED|FAILED) TensorRT\.trtexec (\[TensorRT v[0-9.]+\])")
_STAMP = re.compile(r"^\[[0-9/:-]+\] \[([A-Z])\] ?")
_NUMBER = r"([0-9.eE+-]+|inf|nan)"
_SUMMARY = re.compile(
    rf"(?:^|\] )([A-Z][A-Za-z0-9 -]*): min = {_NUMBER} ms, max = {_NUMBER} ms, mean = {_NUMBER} ms, median = {_NUMBER} ms"
)
_PERCENTILE = re.compile(rf"percentile\(([0-9.]+)%?\) = {_NUMBER} ms")
_PROFILE_HEAD = re.compile(r"=== Profile \(([0-9]+) iterations ?\) ===")

SHARED = "shared"  # a fused layer whose nodes belong to several components
OTHER = "other"  # a layer that names none of our nodes, copies mostly


class Latency(NamedTuple):
    """Milliseconds of one query; `queries` is 0 where only a summary was printed."""

    p50: float
    p95: float
    p99: float
    mean: float
    queries: int


class LayerTime(NamedTuple):
    """Mean milliseconds of one engine layer."""

    name: str
    mean_ms: float


def version_of(text: str) -> Version:
    """The version that a run of `trtexec` announces.

    Raises:
        BuildFailed: it does not announce one.
    """
    found = _STATUS.search(text)
    if not found:
        raise BuildFailed(
            f"no banner of trtexec in its output (it begins {text[:120]!r}); is it TensorRT's own trtexec?"
        )
    return parse_version(found.group(2))


def require_passed(text: str, returncode: int) -> None:
    """Refuse a run that did not end well.

    Raises:
        BuildFailed: a return code other than 0, or no PASSED; the message holds trtexec's own errors.
    """
    ends = [found.group(1) for found in _STATUS.finditer(text)]
    if returncode == 0 and ends and ends[-1] == "PASSED":
        return
    errors = errors_of(text)
    why = "; ".join(errors[:3]) if errors else f"the last it said was {text.strip()[-200:]!r}"
    raise BuildFailed(
        f"trtexec ended with code {returncode}, {ends[-1] if ends else 'without a verdict'}: {why}"
    )


def errors_of(text: str) -> List[str]:
    """The lines that `trtexec` marks as errors, without their time, each cut to 300 characters."""
    found = []
    for line in text.splitlines():
        mark = _STAMP.match(line)
        if mark and mark.group(1) in "EF" and line[mark.end() :].strip():
            found.append(line[mark.end() :].strip()[:300])
    return found


def summary(text: str) -> Dict[str, Dict[str, float]]:
    """Every line of the performance summary: "Latency", "GPU Compute Time" … → min, max, mean, median, "p99" … in ms."""
    result: Dict[str, Dict[str, float]] = {}
    for line in text.splitlines():
        found = _SUMMARY.search(line)
        if not found:
            continue
        row = {key: _float(found.group(k)) for k, key in enumerate(("min", "max", "mean", "median"), start=2)}
        row.update({f"p{_float(p):g}": _float(ms) for p, ms in _PERCENTILE.findall(line)})
        result[found.group(1)] = row
    return result


def latency_of_summary(text: str) -> Latency:
    """Latency as printed; a percentile that this version did not print is NaN.

    Raises:
        BuildFailed: there is no line for it.
    """
    row = summary(text).get("Latency")
    if row is None:
        raise BuildFailed("trtexec printed no latency; did it run the engine, or only build it?")
    nan = float("nan")
    return Latency(row["median"], row.get("p95", nan), row.get("p99", nan), row["mean"], 0)


def latency_of_times(data: bytes, warm_up_ms: float) -> Latency:
    """Latency over the single queries of `--exportTimes`, without those that began in the first `warm_up_ms`.

    Raises:
        BuildFailed: not such a file, or no query after the warm-up.
    """
    entries = _json(data, "times")
    if not isinstance(entries, list):
        raise BuildFailed("the file of times is not a list")
    values = sorted(
        _field(entry, "latencyMs") for entry in entries if _field(entry, "startComputeMs") >= warm_up_ms
    )
    if not values:
        raise BuildFailed(f"no query after the warm-up of {warm_up_ms:g} ms; time for longer")
    if not all(0.0 <= value < math.inf for value in values):
        raise BuildFailed("a latency is negative or not finite")
    p50, p95, p99 = (quantile(values, q) for q in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, math.fsum(values) / len(values), len(values))


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of ascending values, linear between neighbours."""
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def layers_of_profile(data: bytes) -> List[LayerTime]:
    """Layers of `--exportProfile`, in the engine's order.

    Raises:
        BuildFailed: not such a file.
    """
    entries = _json(data, "profile")
    if not isinstance(entries, list) or not entries:
        raise BuildFailed("the profile is not a list of layers")
    result = []
    for entry in entries:
        if isinstance(entry, dict) and set(entry) == {"count"}:
            continue
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise BuildFailed(f"a layer of the profile has no name: {str(entry)[:120]}")
        result.append(LayerTime(name, _field(entry, "averageMs")))
    return result


def layers_of_table(text: str) -> List[LayerTime]:
    """Layers of the table that `--dumpProfile` prints, in either of its two forms; empty if there is none."""
    lines = [_STAMP.sub("", line).rstrip() for line in text.splitlines()]
    start = next((k for k, line in enumerate(lines) if _PROFILE_HEAD.search(line)), None)
    if start is None or start + 1 >= len(lines):
        return []
    head = re.sub(r"\s+", " ", lines[start + 1].strip())
    numbers = len(re.findall(r"%|\(ms\)", head))
    row = r"\s+".join([r"([0-9.]+)"] * numbers)
    name_first = head.startswith("Layer")
    pattern = re.compile(rf"^\s*(.+?)\s+{row}$" if name_first else rf"^\s*{row}\s+(.+)$")
    result = []
    for line in lines[start + 2 :]:
        found = pattern.match(line)
        if not found:
            break
        cells = found.groups()
        name = cells[0] if name_first else cells[-1]
        if name == "Total":
            break
        # total, average, …: the average is the second number in both forms
        result.append(LayerTime(name, float(cells[2 if name_first else 1])))
    return result


def by_component(layers: Iterable[LayerTime], components: Mapping[str, Tuple[str, ...]]) -> Dict[str, float]:
    """Mean milliseconds by component, over all layers.

    An engine's layer is named after the nodes it was fused from ("a + b", "PWN(a, b)", "{ForeignNode[a...b]}"). If these lie in
    one component, so does its time; if not, it counts as `SHARED`: how a fused kernel spends its time is not known. A layer that
    names none of the nodes is `OTHER`.
    """
    owner = {node: component for component, nodes in components.items() for node in nodes}
    result = dict.fromkeys([*components, SHARED, OTHER], 0.0)
    for layer in layers:
        found = {owner[node] for node in _nodes_in(layer.name, owner)}
        result[OTHER if not found else found.pop() if len(found) == 1 else SHARED] += layer.mean_ms
    return result


def outputs_of(data: bytes) -> Dict[str, List[float]]:
    """Tensors of `--exportOutput` by name, flat.

    Raises:
        BuildFailed: not such a file.
    """
    entries = _json(data, "outputs")
    if not isinstance(entries, list):
        raise BuildFailed("the file of outputs is not a list")
    result: Dict[str, List[float]] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        values = entry.get("values") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(values, list) or name in result:
            raise BuildFailed(f"an output is not a named list of numbers: {str(entry)[:120]}")
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            raise BuildFailed(f"output {name!r} holds something that is not a number")
        result[name] = [float(v) for v in values]
    return result


def _nodes_in(layer: str, owner: Mapping[str, str]) -> List[str]:
    # "/a/Add" must not be found in "/a/Add_1": names are cut out whole, then looked up
    return [part for part in re.split(r"[^A-Za-z0-9_./-]+|\.\.\.", layer) if part in owner]


def _json(data: bytes, what: str) -> Any:
    if len(data) > MAX_JSON_BYTES:
        raise BuildFailed(f"the file of {what} has {len(data)} bytes, {MAX_JSON_BYTES} are allowed")
    text = data.decode("utf-8", "replace")
    # C++ streams write what JSON does not know: nan and inf, with and without a sign
    text = re.sub(r"(?<=[\s\[:,])-?nan(?=[\s,\]}])", "NaN", text)
    text = re.sub(r"(?<=[\s\[:,])(-?)inf(?=[\s,\]}])", r"\1Infinity", text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise BuildFailed(f"the file of {what} is not JSON ({err}); was trtexec interrupted?") from None


def _field(entry: Any, key: str) -> float:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BuildFailed(f"{key} is missing in {str(entry)[:120]}")
    return float(value)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
