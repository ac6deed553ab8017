"""One module per page: ask a query or an action, then render."""
