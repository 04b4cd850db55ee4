"""The words of which the simulated users and startups are made."""

from __future__ import annotations

SECTORS = {
    "fintech": "payments banking lending fraud-detection accounting",
    "healthtech": "telemedicine diagnostics medical-imaging patient-records wearables",
    "edtech": "tutoring course-design assessment language-learning classrooms",
    "climate": "carbon-accounting batteries solar grid-software heat-pumps",
    "gaming": "game-engines multiplayer level-design animation monetization",
    "logistics": "routing warehousing fleet-telematics last-mile customs",
    "devtools": "compilers observability ci-pipelines databases api-design",
    "security": "cryptography identity threat-detection pentesting compliance",
    "biotech": "genomics protein-design lab-automation bioinformatics drug-discovery",
    "commerce": "storefronts recommendations pricing loyalty fulfilment",
    "robotics": "motion-planning perception embedded-systems manipulation simulation",
    "media": "video-streaming podcasts editing subtitles creator-tools",
}
SKILLS = [
    "python",
    "rust",
    "typescript",
    "kubernetes",
    "machine-learning",
    "data-engineering",
    "design",
    "product",
    "sales",
    "mobile",
]
STAGES = ["pre-seed", "seed", "series-a", "series-b", "growth"]
CITIES = [
    "berlin",
    "lisbon",
    "nairobi",
    "bangalore",
    "toronto",
    "sao-paulo",
    "tokyo",
    "austin",
    "warsaw",
    "remote",
]
TITLE_FIRST = [
    "Blue",
    "North",
    "Bright",
    "Open",
    "River",
    "Quiet",
    "Swift",
    "Stone",
    "Clear",
    "Field",
    "Iron",
    "Amber",
    "Lumen",
    "Delta",
    "Harbor",
    "Cedar",
]
TITLE_LAST = [
    "works",
    "loop",
    "forge",
    "labs",
    "path",
    "grid",
    "wave",
    "nest",
    "bridge",
    "desk",
    "leaf",
    "spark",
    "mill",
    "line",
    "port",
    "well",
]
PURPOSES = [
    "helps small teams with",
    "rebuilds",
    "makes audits easy in",
    "brings open standards to",
    "cuts the cost of",
    "automates the boring half of",
]
