"""Other words for the genres of films, as people say them."""

from __future__ import annotations

from collections.abc import Mapping

OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "action": ("explosions", "fights", "stunts"),
    "adventure": ("quest", "expedition", "explorers"),
    "animation": ("cartoons", "drawn", "anime"),
    "children": ("toddlers", "youngsters", "childhood"),
    "comedy": ("comic", "laughs", "witty"),
    "crime": ("criminal", "robbery", "heist"),
    "documentary": ("factual", "nonfiction", "interviews"),
    "drama": ("dramatic", "serious", "tragic"),
    "fantasy": ("wizard", "magical", "mythical"),
    "horror": ("creepy", "terror", "frightened"),
    "musical": ("song", "sings", "dance"),
    "mystery": ("puzzling", "secrets", "whodunit"),
    "romance": ("lovers", "passion", "dating"),
    "sci": ("spaceship", "alien", "technology"),
    "thriller": ("gripping", "thrilling", "suspenseful"),
    "war": ("combat", "troops", "military"),
    "western": ("cowboys", "frontier", "sheriff"),
}
"""Three words for each genre, written down once, before anything was measured with them."""
