"""Whether a response is right: in this process, in killable children, and in a sandbox for programs. No torch.

    tier  what                          where it runs
    T0    `exact`                       in this process, linear time
    T1    `mathematics`, `functions`    children that are killed at their deadline (`children`)
    T2    `programs`                    children without network or files (`sandbox`), refused where that cannot be had

Every tier returns typed judgements (`verdict`).
"""
