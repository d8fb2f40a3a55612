"""The command line: what ``embedrack`` and its verbs do on a terminal.

Defines the program with its small verbs (``cli``), a file for each larger one (``status``,
``admin``, ``gc``, ``warm`` with its ``warmer``, ``migrate``, ``load_test``), the call to an
endpoint (``client``) and the texts of a file (``texts``). May import from everything else; only
``python -m proxy_app`` imports from here.
"""
