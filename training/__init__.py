"""From the archive to a published bundle: dataset, fit, evaluation, gate, search. Imported by nothing that serves."""
