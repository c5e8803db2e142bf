"""An opener whose studio fails as the last word of a prompt says; see `serving.fail`."""

from hybridstitch.cli.serve_studio import ServeOpener, Studio
from serving import fail


class FaultyOpener(ServeOpener):
    """Opens a studio that fails."""

    def __call__(self, device):
        studio = ServeOpener.__call__(self, device)
        studio.__class__ = Faulty
        return studio


class Faulty(Studio):
    """Draws, and fails."""

    def draw(self, orders, on_step, on_partial):
        steps = 0

        def stepped(ids):
            nonlocal steps
            steps += 1
            fail(orders[0].prompt.split()[-1], steps)
            on_step(ids)

        return super().draw(orders, stepped, on_partial)
