"""The error of an adapter that says one thing of an implementation which does another."""

from __future__ import annotations


class DeclarationContradicted(Exception):
    """What the adapter declares is not what the implementation does: one of both is wrong, and no law can say which.

    >>> print(DeclarationContradicted("output_at", "0", "a tensor of int64", "the output is a floating tensor"))
    output_at is declared as 0, found: a tensor of int64 (the output is a floating tensor)
    """

    def __init__(self, declaration: str, declared: str, found: str, remedy: str = "") -> None:
        self.declaration, self.declared, self.found, self.remedy = declaration, declared, found, remedy
        super().__init__(declaration, declared, found, remedy)

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.declaration} is declared as {self.declared}, found: {self.found}{remedy}"
