"""The auditor: rules over claims. A rule asks for kinds of figures, so it holds for any document that has them."""
