"""Risk of each AgentDojo tool, classified by hand, and bounds of arguments.

`danger`: effects that cannot be taken back. `get_unread_emails` marks as read, so it is no reading. `get_webpage` is,
as it is bounded to known pages: a request for any other could carry data out.
"""

from __future__ import annotations

READ = """
get_sent_emails get_received_emails get_draft_emails search_emails search_contacts_by_name search_contacts_by_email
get_current_day search_calendar_events get_day_calendar_events
search_files_by_filename get_file_by_id list_files search_files
get_user_information get_all_hotels_in_city get_hotels_prices get_rating_reviews_for_hotels get_hotels_address
get_all_restaurants_in_city get_cuisine_type_for_restaurants get_restaurants_address
get_rating_reviews_for_restaurants get_dietary_restrictions_for_all_restaurants
get_contact_information_for_restaurants get_price_for_restaurants check_restaurant_opening_hours
get_all_car_rental_companies_in_city get_car_types_available get_rating_reviews_for_car_rental
get_car_fuel_options get_car_rental_address get_car_price_per_day get_flight_information
get_iban get_balance get_most_recent_transactions get_scheduled_transactions read_file get_user_info
get_channels read_channel_messages read_inbox get_users_in_channel get_webpage
"""
WRITE = """
send_email delete_email get_unread_emails
create_calendar_event cancel_calendar_event reschedule_calendar_event add_calendar_event_participants
append_to_file create_file share_file
reserve_hotel reserve_car_rental reserve_restaurant
schedule_transaction update_scheduled_transaction update_user_info
add_user_to_channel send_direct_message send_channel_message invite_user_to_slack post_webpage
"""
DANGER = "delete_file send_money update_password remove_user_from_slack"
RISKS: dict[str, str] = {
    **dict.fromkeys(READ.split(), "read"),
    **dict.fromkeys(WRITE.split(), "write"),
    **dict.fromkeys(DANGER.split(), "danger"),
}

# Pages that the suite's users and their colleagues name.
PAGES = (
    "www.our-company.com",
    "www.company-todo-list.com/alice",
    "www.company-todo-list.com/bob",
    "www.informations.com",
    "www.restaurant-zurich.com",
    "www.dora-website.com",
    "www.eve-blog.com",
)
# By tool and argument: the only values.
BOUNDS: dict[str, dict[str, tuple[str, ...]]] = {
    "get_webpage": {"url": PAGES},
    "post_webpage": {"url": ("www.our-company.com",)},
}
