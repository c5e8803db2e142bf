"""A pair behind an address: OpenAI's image API over two models.

Two kinds of processes. One speaks HTTP, keeps the queue and never imports torch; one for each device holds the pair and
draws. They exchange the plain values of `orders` over a pipe, so that a death, a full memory or a poisoned device takes
one request and not the server.

orders      what a worker is told, and what it tells; easel: what it draws with
worker      a process that holds the pair; drawing: an order carried out
member      such a process as seen from here: begun, told, heard, ended
ticket      one request on its way; dispatch: who waits, who draws, who is refused
forecast    predicted seconds; points: what a request's speed, closeness, quality or policy mean
fields      the API's fields; errors: its refusals; source: pictures to edit
album       pictures drawn before; remembered: their routes; shared_album: the same for a cluster
doors       the routes; answers: a drawn order as the API says it; page: `GET /`
settings    how the server is run; meters: what it counts; logs: what it writes
app         all of it in one ASGI application; run: until it is told to stop
on_ray      the same in a cluster; ingress: what clients reach there; replica: what draws
"""
