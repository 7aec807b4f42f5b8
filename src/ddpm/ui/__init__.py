"""The page in the browser (`ddpm ui`): what it computes and shows, and the server that gives it.

Gradio is imported by `parts`, `tabs`, `compress_tab`, `page` and `server` only, and these only by
`ddpm ui`.
"""
