"""In a download this is `engine.errors`: only what training raises of it."""


class Diverged(ArithmeticError):
    """A loss that is not finite."""

    def __init__(self, stage: str, step: int) -> None:
        super().__init__(f"{stage} reached a loss that is not finite at step {step}: lower the learning rate")
