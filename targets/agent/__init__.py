"""The agent: opens, runs and times artifacts where it is started, for a host that speaks `targets.agent.wire` to it.

It needs Python 3.9 and what the runtime itself needs, so it runs on a board, in an emulator, or in a fresh process of
the host. It is the same code that runs on the host: `targets.host.runtime_session` and the runtimes' targets.
"""
