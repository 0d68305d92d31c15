"""The runtime inside a Python sandbox. Its wire is docs/runtime.md.

It imports little: every sandbox boots, and asyncio alone costs more than all of this. So `typing` and `re` are left
out, and what only failures or asynchronous programs need is imported when they come.
"""
