"""The menus: what the commands of each console path do."""
