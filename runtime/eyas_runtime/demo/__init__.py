"""The demo's data: real text that every Python installation already has, and public problems to answer.

Rules: nothing is downloaded, and every file is a function of its inputs.
"""
