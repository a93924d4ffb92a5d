"""A picture as a list of SVG elements."""

from __future__ import annotations

from html import escape

BLUE, ORANGE, GREY, INK = "#2a6fdb", "#d9622b", "#c3cbd6", "#24292f"


def _number(value: float) -> str:
    return f"{value:.1f}"


class Drawing:
    """Elements in pixels from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.elements: list[str] = []

    def add(self, name: str, inner: str = "", **attributes: float | str) -> None:
        """One element; underscores become hyphens, numbers get one decimal."""
        written = " ".join(
            f'{key.replace("_", "-")}="{value if isinstance(value, str) else _number(value)}"'
            for key, value in attributes.items()
        )
        self.elements.append(f"<{name} {written}" + (f">{inner}</{name}>" if inner else "/>"))

    def text(self, x: float, y: float, words: str, anchor: str = "start", fill: str = INK) -> None:
        """One line of words."""
        self.add("text", escape(words), x=x, y=y, text_anchor=anchor, fill=fill)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, stroke: str = GREY, width: float = 1.0
    ) -> None:
        """A straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=float(width))

    def path(self, points: list[tuple[float, float]], stroke: str, width: float = 1.5) -> None:
        """A line through points."""
        joined = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self.add("polyline", points=joined, fill="none", stroke=stroke, stroke_width=float(width))

    def grid(self, x: float, y: float, size: float, shape: tuple[int, int]) -> None:
        """The lines between squares, rows and columns of them."""
        high, wide = shape[0] * size, shape[1] * size
        lines = [f"M{_number(x)} {_number(y + row * size)}h{_number(wide)}" for row in range(shape[0] + 1)]
        lines += [
            f"M{_number(x + column * size)} {_number(y)}v{_number(high)}" for column in range(shape[1] + 1)
        ]
        self.add("path", d="".join(lines), stroke=GREY, fill="none")

    def shade(self, x: float, y: float, size: float, shade: float, fill: str = BLUE) -> None:
        """A square; the shade is in [0, 1]."""
        if shade > 0.005:
            opacity = {} if shade == 1 else {"fill_opacity": f"{_number(100 * shade)}%"}
            self.add("rect", x=x, y=y, width=size, height=size, fill=fill, **opacity)

    def frame(self, x: float, y: float, size: float) -> None:
        """The mark of an output."""
        self.add("rect", x=x, y=y, width=size, height=size, fill="none", stroke=ORANGE, stroke_width=2.5)

    def svg(self, description: str) -> str:
        """The file."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" height="{self.height:.0f}" '
            f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" font-family="system-ui, sans-serif" font-size="11">\n'
            f"<desc>{escape(description)}</desc>\n"
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(self.elements) + "\n</svg>\n"
        )
