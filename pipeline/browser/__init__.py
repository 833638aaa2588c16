"""A local web application that shows every artifact of one or several runs (`weakmask browse`)."""
