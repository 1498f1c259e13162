from .planted import check_planted as check_planted

__all__ = ["check_planted"]
