"""`envvars`: the variables that the runs of an environment find in `os.environ`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from detent.errors import NotFoundError
from detent.protocol import environments
from detent.protocol.envvars import EnvVar, EnvVarValue, PutMode, check_name, check_value
from detent.sdk import env_files
from detent.sdk.blocking import blocking
from detent.sdk.target import HERE, Target

if TYPE_CHECKING:
    from detent.protocol.backend import CallerBackend


class EnvVars:
    """Environment variables: kept encrypted, and given to every run of their environment within ten seconds of a change.

    Methods speak of the environment of the present run; outside one, of the client's, or of the one that `environment=` names:
    `"prod"`, or `"preview/feat/x"` for a branch. Each raises `ValueError` for what is no name or value of a variable,
    `ConfigError` for what is no name of an environment, `NotFoundError` for an environment that is not there, and
    `EncryptionKeyError` when DETENT_ENCRYPTION_KEY does not fit.
    """

    label = "envvars"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = EnvVarsSync(self)

    async def list(self, *, environment: str | None = None) -> list[EnvVar]:
        """Return all variables by name: of a preview branch, those of its parent, too. The value of a secret is None.

        Example::

            for variable in await envvars.list(environment="prod"):
                print(variable.name, variable.is_secret)
        """
        return await self._backend.list_envvars(environment=_checked(environment))

    async def retrieve(self, name: str, *, environment: str | None = None) -> EnvVar:
        """Return a variable. Raises `NotFoundError` when it is not set.

        Example::

            print((await envvars.retrieve("API_URL")).value)
        """
        found = await self._backend.list_envvars([check_name(name)], environment=_checked(environment))
        if not found:
            raise _not_found(name, self._named(environment))
        return found[0]

    async def create(
        self, name: str, value: str, *, is_secret: bool = False, environment: str | None = None
    ) -> None:
        """Set a variable; one that is there gets the value. A secret (default: not) is never read again, and stays one.

        An empty text is a value. The environment is made if it is not there.

        Example::

            await envvars.create("API_KEY", "sk_live_1", is_secret=True, environment="prod")
        """
        await self._put({name: value}, PutMode.SET, is_secret=is_secret, environment=environment)

    async def update(self, name: str, value: str, *, environment: str | None = None) -> None:
        """Give a variable that is there another value. Raises `NotFoundError` when it is not, or only a branch's parent has it.

        Example::

            await envvars.update("API_KEY", "sk_live_2", environment="prod")
        """
        if not await self._put({name: value}, PutMode.UPDATE, is_secret=False, environment=environment):
            raise _not_found(name, self._named(environment))

    async def upload(
        self,
        variables: Mapping[str, str] | str,
        *,
        override: bool = False,
        is_secret: bool = False,
        environment: str | None = None,
    ) -> tuple[str, ...]:
        """Set many variables at once, all or none: from a mapping, or the text of an env file. Return those that were set.

        - `override`: give those that are there the new value; default False, which leaves them.
        - `is_secret`: default False.

        Example::

            await envvars.upload(Path(".env.production").read_text(), environment="prod")
        """
        given = env_files.parse(variables) if isinstance(variables, str) else variables
        mode = PutMode.SET if override else PutMode.KEEP
        return await self._put(given, mode, is_secret=is_secret, environment=environment)

    async def delete(self, name: str, *, environment: str | None = None) -> None:
        """Remove a variable; a branch has that of its parent again. Raises `NotFoundError` when it is not set.

        Example::

            await envvars.delete("API_KEY", environment="prod")
        """
        (was_there,) = await self._backend.delete_envvars([check_name(name)], environment=_checked(environment))
        if not was_there:
            raise _not_found(name, self._named(environment))

    async def _put(
        self, variables: Mapping[str, str], mode: PutMode, *, is_secret: bool, environment: str | None
    ) -> tuple[str, ...]:
        values = [
            EnvVarValue(name=check_name(name), value=check_value(name, value), is_secret=is_secret)
            for name, value in variables.items()
        ]
        written = await self._backend.put_envvars(values, mode, environment=_checked(environment))
        return tuple(value.name for value, is_written in zip(values, written, strict=True) if is_written)

    @property
    def _backend(self) -> CallerBackend:
        return self._target.connection().backend

    def _named(self, environment: str | None) -> str:
        return self._target.environment if environment is None else environment


class EnvVarsSync:
    """`envvars` as blocking calls."""

    def __init__(self, envvars: EnvVars) -> None:
        self.list = blocking(envvars.list)
        self.retrieve = blocking(envvars.retrieve)
        self.create = blocking(envvars.create)
        self.update = blocking(envvars.update)
        self.upload = blocking(envvars.upload)
        self.delete = blocking(envvars.delete)


def _checked(environment: str | None) -> str | None:
    return None if environment is None else environments.check(environment)


def _not_found(name: str, environment: str) -> NotFoundError:
    message = f'environment "{environment}" has no variable {name} of its own; set it with envvars.create'
    return NotFoundError(message, code="envvar_not_found")


envvars = EnvVars()
