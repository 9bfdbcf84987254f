"""What the mirror and the capture at the edge cost a user, beside a plain NGINX proxy in the same run."""
