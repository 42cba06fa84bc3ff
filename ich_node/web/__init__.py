"""The node's web pages. So far: the page that acknowledges an alert.

Nothing is imported here, so that the certificate can be checked without a web server's libraries.
"""
