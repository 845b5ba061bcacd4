"""Crescent: reproduce, check and extend self-improvement of language models from data that they wrote themselves.

The rooms are described in README.md; importing this package or any module of it loads neither torch nor vLLM.
"""

__version__ = "0.1.0"
