"""Result documents and their renderers: terminal, Markdown, HTML. Nothing here computes or imports torch."""
