"""What the store holds, for whom, how long, and how it is kept sound. Rules are functions of a session that never commit."""
