"""The page in the browser (`ddpm ui`): what it computes and shows, and the server that hands it out.

Gradio is imported by `ddpm.ui.page`, `ddpm.ui.tabs` and `ddpm.ui.server` only, which only `ddpm ui` imports.
"""
