"""Users, tokens and scopes: who may do what in a store, on the mount and on the control socket alike."""
