"""torchaudio on a CPU build of torch.

torchaudio's optional C++ extension links CUDA libraries, so on a CPU-only torch `import torchaudio` raises OSError although
the pure-Python transforms need none of it. Every module here takes torchaudio from this one, which registers the extension as
unavailable, once, and only after that very failure.
"""

from __future__ import annotations

import sys
import types


def _load() -> types.ModuleType:
    try:
        import torchaudio
    except OSError:
        for name in [m for m in sys.modules if m == "torchaudio" or m.startswith("torchaudio.")]:
            del sys.modules[name]
        absent = types.ModuleType("torchaudio._extension")
        absent._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        absent._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
        absent.lazy_import_sox_ext = lambda: None  # type: ignore[attr-defined]
        absent.fail_if_no_align = lambda func: func  # type: ignore[attr-defined]
        sys.modules["torchaudio._extension"] = absent
        import torchaudio
    return torchaudio  # type: ignore[no-any-return,unused-ignore]


torchaudio = _load()
