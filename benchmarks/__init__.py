"""Speed of lossmith beside that of its peers: `python -m benchmarks`.

The work is a table (`works`), the contestants are one module each (`ours`, `with_torch`, `with_jax`, `with_sklearn`,
`with_numpy`), the targets are a table (`targets`). For each number of threads one process (`worker`) runs all
contestants in turns; `supervise` starts it, outlives its crashes and collects what it found; `page` writes it down.
"""
