"""What the keys of summary.json mean. A test compares them with those of a run."""

from __future__ import annotations

SUMMARY: dict[str, str] = {
    "subset": "Name of the subset",
    "description": "Description from the manifest",
    "origins": "Sources of the labels and of the images, from the manifest",
    "rows_in": "Number of input rows",
    "rows_out": "Number of people in the shards",
    "statuses": "Number of rows by status",
    "pve_mm": "Mean vertex error of the people in the shards: mean, p50, p95 and max, mm",
    "stage_pve_mm": "Mean of the mean vertex error after each stage, mm",
    "skel_genders": "Number of people by the gender of their SKEL body",
    "betas_mm": "Distance of SKEL's skin at rest to SMPL's, betas transferred and refined: mean, p50, p95 and max, mm",
    "images": "Number of people whose image was found, and of those without one, by reason",
    "rejected": "Number of rows that are not in the shards, by 'status: kind of reason'",
    "filters": "For each active filter, its value, and how many rows or keypoints it left out",
    "people_per_second": "Speed of the last run, or of all ranks; null if it had no shard to make",
    "time": "Shares of the time of the last run's shards, and of its workers' time spent in the fit",
    "shards": "Number of shards",
    "skelfit": "Version of skelfit",
    "identity_sha256": "Hash of the identity",
    "identity": "What the run's results depend on: labels, pipeline, models, layout, algorithm",
    "content_sha256": "Hash of all other keys",
}
