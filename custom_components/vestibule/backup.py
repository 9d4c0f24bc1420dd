"""Backups of Home Assistant: the journal's file rests while it is copied, and its copy says that it is one.

Without that, a copy of a database that is written to would be broken (protocol D). The doors work throughout: what
happens meanwhile goes to the journal's log.
"""

from __future__ import annotations

from homeassistant.core import HomeAssistant

from .embedded import loaded_building
from .vestibule_core.journal import end_copies


async def async_pre_backup(hass: HomeAssistant) -> None:
    """Let the journal's file rest."""
    if (building := loaded_building(hass)) is not None:
        await building.begin_backup()


async def async_post_backup(hass: HomeAssistant) -> None:
    """Let it be written to again."""
    if (building := loaded_building(hass)) is not None:
        await building.end_backup()
    await hass.async_add_executor_job(end_copies)  # of a building that was unloaded or removed meanwhile
