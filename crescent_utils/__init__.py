"""Crescent: reproduce, check and extend self-improvement of language models from data that they wrote themselves.

The folders are described in README.md, the modules in CONTRIBUTING.md; importing this package or any module of it loads
neither torch nor vLLM.
"""

import os
import warnings

__version__ = "0.1.0"

# Libraries below draw progress bars of their own into a notebook's outputs; ours (generate.py) is asked for explicitly.
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch loads; vLLM would tell of its memory binding
warnings.filterwarnings("ignore", message="IProgress not found")
