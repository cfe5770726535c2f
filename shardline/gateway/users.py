"""Who calls, and what their roles allow."""

from dataclasses import dataclass, field
from enum import StrEnum

from shardline.gateway.problems import Problem
from shardline_common.errors import UsageError
from shardline_common.settings.load import Settings


class Right(StrEnum):
    """What a role may allow."""

    READ = "read"
    CREATE = "create"
    EXPORT = "export"
    PURGE = "purge"


_LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - where every request carries a token
_CREATORS = frozenset({"admin", "trainer", "analyst"})
_EXPORTERS = frozenset({"admin", "trainer"})
ROLES = {
    Right.READ: _CREATORS,
    Right.CREATE: _CREATORS,
    Right.EXPORT: _EXPORTERS,
    Right.PURGE: _EXPORTERS,
}


@dataclass(frozen=True, slots=True)
class User:
    """A caller. `name` is for people: the audit log, `submitted_by`."""

    id: str
    name: str
    roles: frozenset[str] = field(default_factory=frozenset)

    def may(self, right: Right) -> bool:
        """Whether one of the roles allows it."""
        return bool(self.roles & ROLES[right])

    def require(self, right: Right) -> None:
        """Raise Problem (403) unless one of the roles allows it."""
        if not self.may(right):
            raise Problem(403, f"none of the roles of {self.name} allows to {right.value}")


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """Who is let in. `everyone` None: only who has a token; else all are that user."""

    everyone: User | None
    issuer: str = ""
    audience: str = ""
    host: str = _LOOPBACK
    warnings: tuple[str, ...] = ()

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine may reach the port."""
        return self.host in ("127.0.0.1", "::1", "localhost")


def security_policy(settings: Settings) -> SecurityPolicy:
    """The policy that the settings ask for.

    Raises:
        UsageError: production without tokens, or tokens without a Keycloak.
    """
    mode = settings.security_mode
    if mode == "production" and not settings.jwt_enabled:
        raise UsageError(
            "CLARA_SECURITY_MODE=production with CLARA_JWT_ENABLED=false would let everyone in",
            hint="set CLARA_JWT_ENABLED=true, or CLARA_SECURITY_MODE=development, debug or testing",
        )
    if settings.jwt_enabled and mode in ("production", "development"):
        return _with_tokens(settings)
    return _without_tokens(settings)


def _with_tokens(settings: Settings) -> SecurityPolicy:
    if not settings.keycloak_url:
        raise UsageError(
            f"CLARA_SECURITY_MODE={settings.security_mode} asks for tokens, and KEYCLOAK_URL is not set",
            hint="set KEYCLOAK_URL, KEYCLOAK_REALM and KEYCLOAK_CLIENT_ID",
        )
    issuer = f"{settings.keycloak_url.rstrip('/')}/realms/{settings.keycloak_realm}"
    plain = "KEYCLOAK_URL is not https: whoever can change that traffic can make tokens"
    warnings = (plain,) if issuer.startswith("http://") else ()
    return SecurityPolicy(
        None, issuer, settings.keycloak_client_id, settings.gateway_host or _EVERYWHERE, warnings
    )


def _without_tokens(settings: Settings) -> SecurityPolicy:
    roles = frozenset(role.strip() for role in settings.debug_user_roles.split(",") if role.strip())
    user = User(settings.debug_user_id, settings.debug_user_email, roles)
    warning = (
        f"NO TOKEN IS ASKED FOR: everyone who reaches this port is {user.name} ({', '.join(sorted(roles))})"
    )
    return SecurityPolicy(user, host=settings.gateway_host or _LOOPBACK, warnings=(warning,))
