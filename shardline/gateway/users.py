"""Users, the permissions of their roles, and the security policy of the gateway."""

from dataclasses import dataclass, field
from enum import StrEnum

from shardline.gateway.problems import Problem
from shardline_common.errors import UsageError
from shardline_common.job.submission import Owner
from shardline_common.settings.load import Settings


class Permission(StrEnum):
    """A kind of action that a role may allow."""

    READ = "read"
    CREATE = "create"
    EXPORT = "export"
    PURGE = "purge"


_LOOPBACK = "127.0.0.1"
_ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - used only where every request needs a token
ADMIN = "admin"
ROLES = (ADMIN, "trainer", "analyst")
_CREATORS = frozenset(ROLES)
_EXPORTERS = frozenset({ADMIN, "trainer"})
ROLES_BY_PERMISSION = {
    Permission.READ: _CREATORS,
    Permission.CREATE: _CREATORS,
    Permission.EXPORT: _EXPORTERS,
    Permission.PURGE: _EXPORTERS,
}


@dataclass(frozen=True, slots=True)
class User:
    """The caller of a request. `name` is shown in the audit log and in a job's `submitted_by`.

    `id` is the subject of the token, and `issuer` its issuer; None where no token is required.
    """

    id: str
    name: str
    roles: frozenset[str] = field(default_factory=frozenset)
    issuer: str | None = None

    @property
    def known_roles(self) -> tuple[str, ...]:
        """The roles that mean something to the gateway, the one with the most permissions first."""
        return tuple(role for role in ROLES if role in self.roles)

    @property
    def owner(self) -> Owner:
        """The user as the owner of a dataset."""
        return Owner(self.id, self.issuer)

    def has(self, permission: Permission) -> bool:
        """Whether one of the user's roles allows the action."""
        return bool(self.roles & ROLES_BY_PERMISSION[permission])

    def require(self, permission: Permission) -> None:
        """Raise Problem (403) when none of the user's roles allows the action."""
        if not self.has(permission):
            raise Problem(403, f"no role of {self.name} has the permission '{permission.value}'")


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """How the gateway authenticates requests, and where it listens.

    Attributes:
        debug_user: the user of every request, without a token; None: every request needs a token.
        issuer: the issuer that a token must name.
        audience: the audience that a token must name.
        host: the address to listen on.
        warnings: sentences to log at the start.
    """

    debug_user: User | None
    issuer: str = ""
    audience: str = ""
    host: str = _LOOPBACK
    warnings: tuple[str, ...] = ()

    @property
    def loopback_only(self) -> bool:
        """Whether the port can be reached from this machine only."""
        return self.host in ("127.0.0.1", "::1", "localhost")


def security_policy(settings: Settings) -> SecurityPolicy:
    """Make the policy from the settings.

    Raises:
        UsageError: tokens are switched off in production, or required without the address of Keycloak.
    """
    mode = settings.security_mode
    if mode == "production" and not settings.jwt_enabled:
        raise UsageError(
            "CLARA_SECURITY_MODE=production with CLARA_JWT_ENABLED=false would accept every request",
            hint="set CLARA_JWT_ENABLED=true, or CLARA_SECURITY_MODE=development, debug or testing",
        )
    if not settings.jwt_enabled or mode not in ("production", "development"):
        roles = frozenset(role.strip() for role in settings.debug_user_roles.split(",") if role.strip())
        user = User(settings.debug_user_id, settings.debug_user_email, roles)
        warning = (
            "NO TOKEN IS REQUIRED: every request to this port is made as "
            f"{user.name} ({', '.join(sorted(roles))})"
        )
        return SecurityPolicy(user, host=settings.gateway_host or _LOOPBACK, warnings=(warning,))
    if not settings.keycloak_url:
        raise UsageError(
            f"CLARA_SECURITY_MODE={mode} requires tokens, and KEYCLOAK_URL is not set",
            hint="set KEYCLOAK_URL, KEYCLOAK_REALM and KEYCLOAK_CLIENT_ID",
        )
    issuer = f"{settings.keycloak_url.rstrip('/')}/realms/{settings.keycloak_realm}"
    plain = "KEYCLOAK_URL is not https: an attacker who can modify that traffic can forge tokens"
    return SecurityPolicy(
        None,
        issuer,
        settings.keycloak_client_id,
        settings.gateway_host or _ALL_INTERFACES,
        (plain,) if issuer.startswith("http://") else (),
    )
