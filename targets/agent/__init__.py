"""The agent: opens, runs and times artifacts on the machine where it runs, for a host that uses `targets.agent.wire`.

It needs Python 3.9 and the runtime's own dependencies, so it runs on a board, in an emulator, or in a fresh process of
the host. It is the same code that runs on the host: the runtimes' targets and sessions.
"""
