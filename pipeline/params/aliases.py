"""Aliases in YAML, which let a text of a few lines stand for billions of values."""

import yaml

MOST = 2**20
"""Letters and values that a text with aliases may stand for."""


def check_aliases(text: str) -> None:
    """Raise ValueError if the aliases of a YAML text stand for more than MOST letters and values,
    or for themselves; YAMLError if it is no YAML.
    """
    if "*" not in text:
        return
    root = yaml.compose(text, yaml.SafeLoader)
    if root is not None:
        _measure(root, {})


def _measure(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Letters and values below a node, each alias written out; `sizes` are those known, 0 while
    they are counted.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError("an alias stands for itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    if isinstance(node, yaml.MappingNode):
        size = 1 + sum(_measure(part, sizes) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        size = 1 + sum(_measure(part, sizes) for part in node.value)
    else:
        size = 1 + len(node.value)
    if size > MOST:
        raise ValueError(f"its aliases stand for more than {MOST} letters and values")
    sizes[id(node)] = size
    return size
