"""Who decides: plans, the policies that make them, how both are written, recorded and costed. Nothing here needs torch.

plan      what one step does: a few strokes; seen: what a policy may look at
policy    one question, `decide(seen) -> Plan`
methods   answers it for every method of the paper; skip, replay, and reuse around any policy
program   the language of fixed programs; options writes and reads any policy's fields, parse a whole policy
presets   policies by name, with the setting each is at home in
trace     what was decided and measured: saved, loaded, replayed
levels    where along the noise few steps are taken
latency   Eq. 3-8, operations, memory
"""
