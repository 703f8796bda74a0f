"""Which routes a mail may take, as the settings know it: `[[choice]]`, first match wins."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from streamq.settings.values import Names

__all__ = ["ChoiceSettings"]


class ChoiceSettings(BaseModel):
    """One rule. All that it names must fit; of a list, one. `tenant` and `sender` are globs; `sender` is for the domain
    of the envelope sender, in lower case, which the null sender has not. `routes` are routes, or groups of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    tenant: Names = ()
    priority: Names = ()
    sender: Names = ()
    routes: Names = Field(min_length=1)

    @field_validator("sender")
    @classmethod
    def _domains(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            if "@" in glob:
                raise ValueError(f"a domain, or a glob for one, without '@': {glob!r}")
        return tuple(glob.lower() for glob in globs)

    @model_validator(mode="after")
    def _chooses(self) -> ChoiceSettings:
        if not (self.tenant or self.priority or self.sender):
            raise ValueError("names no mails: give tenant, priority or sender")
        return self

    def fits(self, tenant: str | None, priority: str, sender: str) -> bool:
        """`sender`: the domain of the envelope sender, "" for the null sender."""
        return (
            (not self.tenant or (tenant is not None and _any(self.tenant, tenant)))
            and (not self.priority or priority in self.priority)
            and (not self.sender or (sender != "" and _any(self.sender, sender)))
        )


def _any(globs: tuple[str, ...], text: str) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)
