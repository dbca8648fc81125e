"""What a user of the package can catch. Each message says what happened, what is safe and what to do."""


class HubSyncError(Exception):
    """The base of every error that this package raises on purpose."""


class SettingsError(HubSyncError, ValueError):
    """A setting or argument that cannot work; raised before anything is done with it."""


class OutboxError(HubSyncError, OSError):
    """The outbox on disk could not take a push."""


class PushNotSent(HubSyncError, RuntimeError):
    """A push that has not reached the Hub when its run ended. It waits in the outbox."""


class ForeignRun(HubSyncError, RuntimeError):
    """The repository holds another run's model, and the settings say not to go on top of it."""


class ResumeError(HubSyncError, RuntimeError):
    """A checkpoint that is known to exist could not be fetched; starting anew would lose what it holds."""
