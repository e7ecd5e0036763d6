"""Times for people to read. Standard library only."""


def duration(seconds: float) -> str:
    """A rounded time: 0.8 s, 12 s, 3 min, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def remaining(seconds: float | None) -> str:
    """A rounded estimate: whole seconds, in fives from ten on, then minutes."""
    if seconds is None:
        return ""
    whole_s = max(1, round(seconds))
    if whole_s < 60:
        return f"about {whole_s if whole_s < 10 else 5 * round(whole_s / 5)} s left"
    return f"about {duration(max(seconds, 120))} left" if seconds > 90 else "about a minute left"
