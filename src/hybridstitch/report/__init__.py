"""Pictures about pictures: who drew what and why, as a film strip, side by side, and as one self-contained page.

takes        what was drawn: a `Take` is one picture with its trace, an `Exhibit` one beside the large model's
frames       the picture emerging, step by step
overlay      masks laid over pictures, pictures side by side
filmstrip    one run on one sheet
page         all of it in one HTML file that needs no network
colours      one colour for each model and method, everywhere
"""
