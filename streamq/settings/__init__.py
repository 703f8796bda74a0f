"""Settings: STREAMQ_* in the environment, streamq.toml, flags; flags win, then environment, then file."""

from streamq.settings.adapt import AdaptSettings
from streamq.settings.choice import ChoiceSettings
from streamq.settings.load import load_settings
from streamq.settings.route import BEARER_MECHANISMS, RouteSettings
from streamq.settings.settings import LimitSettings, Settings, SiteSettings
from streamq.settings.token import TokenSettings
from streamq.settings.values import UNITS_MS, Place, Window, duration_ms, window
from streamq.settings.webhook import WebhookSettings

__all__ = [
    "BEARER_MECHANISMS",
    "UNITS_MS",
    "AdaptSettings",
    "ChoiceSettings",
    "LimitSettings",
    "Place",
    "RouteSettings",
    "Settings",
    "SiteSettings",
    "TokenSettings",
    "WebhookSettings",
    "Window",
    "duration_ms",
    "load_settings",
    "window",
]
